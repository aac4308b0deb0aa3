"""What people see and compare: equality, hash, short texts, notebook tables, data frames."""

from __future__ import annotations

import builtins
import copy
import json
import pickle
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from placement import (
    Constraints,
    Evaluation,
    Objective,
    Plan,
    Problem,
    Score,
    Termination,
    TokenSplit,
    Topology,
    evaluate,
    optimal_split,
    score,
)
from placement.cost.bounds import levels_of
from placement.cost.breakdown import Breakdown, break_down
from tests.builders.problems import problem_of
from tests.builders.traces import random_trace
from traces import InputError, Trace

MOST_LINES = 10


class Large(NamedTuple):
    """A large problem, and all that is made of it."""

    problem: Problem
    topology: Topology
    plan: Plan
    trace: Trace
    score: Score
    evaluation: Evaluation
    split: TokenSplit
    breakdown: Breakdown


@cache
def large() -> Large:
    """Return a problem of 32 layers and 128 experts on four nodes, a plan and its tokens; made by the first test."""
    trace = random_trace(1, 40, 32, 128, 4)
    problem = problem_of(
        trace,
        "hgx_h100:4",
        5,
        objective=Objective(execution="dispatch"),
        constraints=Constraints(load_cap=1.5),
    )
    table = np.tile(np.arange(160) % 128, (32, 1))
    stopped = Termination(reason="feasible", limit="time", detail="The time ran out. " * 20)
    provenance = {"solver": "annealing", "objective": {"execution": "dispatch"}}
    plan = problem.plan(table, score=1.5, termination=stopped, provenance=provenance)
    return Large(
        problem=problem,
        topology=problem.topology,
        plan=plan,
        trace=trace,
        score=score(problem, plan),
        evaluation=evaluate(plan, trace, problem.topology, workers=1),
        split=optimal_split(problem, plan),
        breakdown=break_down(problem, plan),
    )


TERMS = ("traffic", "imbalance", "load_excess", "load_spread")


@pytest.fixture
def item(request: pytest.FixtureRequest) -> Any:
    """Return a part of it, or a term of its score, by name."""
    return large().score[request.param] if request.param in TERMS else getattr(large(), request.param)


@pytest.mark.parametrize(
    "item", ["problem", "topology", "plan", "score", "evaluation", "split", "breakdown", *TERMS], indirect=True
)
def test_texts_are_short(item: object) -> None:
    """No object fills the screen, however large it is."""
    lines = repr(item).splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 160
    assert type(item).__name__ in lines[0]


@pytest.mark.parametrize("item", ["problem", "topology", "plan", "score", "evaluation"], indirect=True)
def test_notebooks_show_a_table(item: Any) -> None:
    """Notebooks get a table with the same figures as the text."""
    shown = item._repr_html_()
    assert shown.startswith("<table>")
    assert shown.endswith("</table>")
    assert shown.count("<tr>") <= MOST_LINES


def test_names_are_escaped_in_notebooks() -> None:
    """A name that is HTML stays text."""
    topology = replace(Topology.parse("1x2"), name="<script>alert(1)</script>")
    assert "<script>" not in topology._repr_html_()
    assert "&lt;script&gt;" in topology._repr_html_()


@pytest.mark.parametrize("item", ["plan", "topology", "score", "evaluation", "split", "breakdown"], indirect=True)
def test_copies_are_equal_and_hash_alike(item: object) -> None:
    """Equality and hash go by content, not by identity."""
    for other in (copy.deepcopy(item), pickle.loads(pickle.dumps(item))):
        assert other is not item
        assert other == item
        assert hash(other) == hash(item)
        assert len({item, other}) == 1
    assert item != "something else"


def test_bare_plans_pickle() -> None:
    """A plan with nothing recorded comes back equal, and as read-only as it was."""
    plan = Plan.of([[0, 1, 2, 3]], layer_ids=[0], num_experts=4, gpus_per_node=(2,))
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan
    assert not again.physical_to_logical_map.flags.writeable


def test_topologies_that_differ_are_unequal() -> None:
    """One entry of one array is enough, and so is an array that only one of them has."""
    one, other = Topology.parse("2x4"), Topology.parse("2x4")
    assert one == other
    assert hash(one) == hash(other)
    assert {one: "found"}[other] == "found"
    cost = one.hop_cost.copy()
    cost[0, 7] = 0.5
    assert replace(one, hop_cost=cost) != one
    assert replace(one, memory_gb=np.full(8, 80.0)) != one
    assert Topology.parse("2x2") != one
    assert one != Topology.parse("1x8")


def test_scores_and_terms_that_differ_are_unequal() -> None:
    """A score is its total, its terms and its layers."""
    assert replace(large().score, max_load=large().score.max_load + 1) != large().score
    assert replace(large().score, total=large().score.total + 1) != large().score
    assert replace(large().score.terms[0], value=-1.0) != large().score.terms[0]
    assert score(large().problem, large().plan) == large().score


def test_plans_hash_by_content() -> None:
    """Plans are keys: the same content is the same key, another warning another one."""
    again = Plan.from_dict(json.loads(json.dumps(large().plan.as_dict())))
    assert again == large().plan
    assert hash(again) == hash(large().plan)
    assert len({large().plan, again, large().plan.replacing(warnings=("x",))}) == 2


def test_levels_compare_by_content() -> None:
    """What is computed twice is equal."""
    assert levels_of(large().problem) == levels_of(large().problem)


def test_zeros_of_both_signs_are_one_key() -> None:
    """-0.0 equals 0.0, so both have the same hash; NaN equals itself."""
    signed = [
        Score(total=0.0, terms=(), traffic_by_layer=np.array([zero, np.nan]), max_load=np.ones(1))
        for zero in (0.0, -0.0)
    ]
    assert signed[0] == signed[1]
    assert hash(signed[0]) == hash(signed[1])


def test_terms_are_read_by_name() -> None:
    """Terms have names; one that is not there is refused with those that are."""
    assert list(large().score) == list(TERMS)
    assert large().score["imbalance"] is large().score.terms[1]
    assert sum(large().score[name].cost for name in large().score) == pytest.approx(large().score.total)
    with pytest.raises(KeyError, match="load_excess"):
        _ = large().score["loads"]


def test_frame_of_a_plan_has_a_row_per_slot() -> None:
    """Layer, GPU, slot within the GPU, expert; the map can be put together from it."""
    frame = large().plan.to_frame()
    assert list(frame.columns) == ["layer_id", "gpu", "slot", "expert"]
    assert len(frame) == 32 * 160
    assert frame.loc[(frame.layer_id == 3) & (frame.gpu == 7) & (frame.slot == 2), "expert"].tolist() == [37]
    again = frame.sort_values(["layer_id", "gpu", "slot"]).expert.to_numpy().reshape(32, 160)
    assert np.array_equal(again, large().plan.physical_to_logical_map)


def test_frame_of_a_score_has_a_row_per_term() -> None:
    """Costs add up to the score."""
    frame = large().score.to_frame()
    assert frame.term.tolist() == list(large().score)
    assert frame.cost.sum() == pytest.approx(large().score.total)


def test_frame_of_an_evaluation_has_a_row_per_layer() -> None:
    """Boundaries are one fewer than layers: the last row has none of their figures."""
    frame = large().evaluation.to_frame()
    assert frame.layer_id.tolist() == list(range(32))
    assert frame.fanout_gpus.tolist() == large().evaluation.per_layer["fanout_gpus"]
    context = evaluate(
        large().plan, large().trace, large().topology, execution="context_coherent", workers=1
    ).to_frame()
    assert len(context) == 32
    assert context.traffic.isna().tolist() == [False] * 31 + [True]


def test_frames_without_pandas_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is the command that helps."""
    original = builtins.__import__

    def without_pandas(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name == "pandas":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    with pytest.raises(ImportError, match=r'pip install "moe-placement\[frame\]"'):
        large().plan.to_frame()


def test_frames_are_pandas() -> None:
    """Every frame is one of pandas."""
    assert all(isinstance(item.to_frame(), pd.DataFrame) for item in (large().plan, large().score, large().evaluation))


def test_evaluations_survive_json() -> None:
    """`from_dict` is the inverse of `as_dict`, through JSON."""
    again = Evaluation.from_dict(json.loads(json.dumps(large().evaluation.as_dict())))
    assert again == large().evaluation
    assert again.gpu_load.dtype == np.int64
    assert again.hottest_links == large().evaluation.hottest_links


def test_dictionaries_that_are_no_evaluation_are_refused() -> None:
    """All that is missing, and all that is too much, at once."""
    content = large().evaluation.as_dict() | {"other": 1}
    del content["tokens"], content["traffic"]
    with pytest.raises(InputError) as caught:
        Evaluation.from_dict(content)
    places = [(item.code, item.pointer) for item in caught.value.violations]
    assert places == [("missing_field", "/tokens"), ("missing_field", "/traffic"), ("unknown_field", "/other")]


@pytest.mark.parametrize("check", [score, optimal_split, break_down])
def test_plans_and_maps_are_the_same_to_all(check: Any) -> None:
    """A plan is as good as its map."""
    assert check(large().problem, large().plan) == check(large().problem, large().plan.physical_to_logical_map)


@pytest.mark.parametrize("check", [score, optimal_split, break_down, Problem.plan])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda table: table[:, :-1], "map_shape"),
        (lambda table: table[:-1], "map_shape"),
        (lambda table: table.astype(float), "map_shape"),
        (lambda table: np.where(table == 5, 128, table), "expert_out_of_range"),
        (lambda table: np.where(table == 5, -2, table), "expert_out_of_range"),
        (lambda table: np.where(table == 5, -1, table), "expert_missing"),
    ],
)
def test_maps_that_are_not_the_problems_are_refused(check: Any, change: Any, code: str) -> None:
    """Shape, type, ids and missing experts."""
    with pytest.raises(InputError) as caught:
        check(large().problem, change(large().plan.physical_to_logical_map))
    assert {item.code for item in caught.value.violations} == {code}


@pytest.mark.parametrize("check", [score, optimal_split, break_down])
def test_plans_of_other_sizes_are_refused(check: Any) -> None:
    """Everything that differs is named at once; how GPUs form nodes may differ."""
    other = Plan.of(np.arange(8)[None], layer_ids=[3], num_experts=8, gpus_per_node=(2, 2))
    with pytest.raises(InputError) as caught:
        check(large().problem, other)
    pointers = [item.pointer for item in caught.value.violations]
    assert pointers == ["/plan/num_experts", "/plan/num_gpus", "/plan/slots_per_gpu", "/plan/layer_ids"]
    shifted = large().plan.replacing(layer_ids=large().plan.layer_ids + 1)
    with pytest.raises(InputError, match="layers"):
        check(large().problem, shifted)
    assert check(large().problem, large().plan.replacing(gpus_per_node=(32,))) == check(large().problem, large().plan)


def test_a_map_becomes_the_problems_plan() -> None:
    """Sizes come from the problem, the rest from the caller."""
    plan = large().problem.plan(large().plan.physical_to_logical_map, score=2.0)
    assert (plan.num_experts, plan.num_gpus, plan.slots_per_gpu) == (128, 32, 5)
    assert plan.gpus_per_node == (8, 8, 8, 8)
    assert plan.score == 2.0
    assert plan.layer_ids.tolist() == large().problem.profile.layer_ids.tolist()


def test_a_split_says_its_sizes() -> None:
    """A short line, with what matters."""
    assert isinstance(large().split, TokenSplit)
    assert "128 experts over 32 GPUs in 32 layers" in repr(large().split)
