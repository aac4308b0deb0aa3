"""Plans side by side: rows, the best one, and what a frame or a document shows."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from placement import Constraints, LayerCap, Objective, Problem, Topology, evaluate, score
from solvers import Comparison, Limits, solve
from solvers.judging.comparing import judge
from tests.builders.problems import problem_of
from tests.builders.traces import load_counts
from traces import InputError, Profile, Trace
from traces.synthetic import Synthetic, generate

PARAMS = Synthetic(num_layers=3, num_experts=8, top_k=2, num_tokens=512, tokens_per_sequence=32)


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Return a trace with planted affinity."""
    return generate(PARAMS)


@pytest.fixture(scope="module")
def problem(trace: Trace) -> Problem:
    """Return a problem of dispatch with caps."""
    caps = Constraints(load_cap=1.5, layer_load_caps=(LayerCap(layer_id=1, load_cap=1.25),))
    return problem_of(trace, "2x2", 2, Objective(execution="dispatch"), caps)


@pytest.fixture(scope="module")
def compared(problem: Problem, trace: Trace) -> Comparison:
    """Compare the contiguous plan with that of the load balancer, on one part."""
    plans = {name: solve(problem, name, limits=Limits(work=500), workers=1).plan for name in ("contiguous", "eplb")}
    return judge(problem, {"fit": trace}, plans, notes=("A note.",), workers=1)


def test_rows_are_found_by_name(compared: Comparison) -> None:
    """In the order of the plans."""
    assert [row.name for row in compared.rows] == ["contiguous", "eplb"]
    assert compared["eplb"] is compared.rows[1]


def test_an_unknown_name_is_refused_with_those_there_are(compared: Comparison) -> None:
    """What was compared is told."""
    with pytest.raises(InputError) as error:
        compared["eplbb"]
    (violation,) = error.value.violations
    assert (violation.code, violation.remedy) == ("unknown_plan", "Plans are contiguous, eplb.")


def test_the_best_has_the_lowest_score(problem: Problem, compared: Comparison) -> None:
    """As the problem scores it."""
    totals = {row.name: score(problem, row.plan).total for row in compared.rows}
    assert {row.name: row.score for row in compared.rows} == totals
    assert compared.best.name == min(totals, key=lambda name: totals[name])


def test_of_equal_scores_the_first_is_the_best(problem: Problem) -> None:
    """The baseline, if nothing beats it."""
    plan = solve(problem, "contiguous", limits=Limits(work=1), workers=1).plan
    found = judge(problem, {}, {"first": plan, "second": plan}, workers=1)
    assert found.best.name == "first"


def test_a_plan_is_judged_as_the_problem_says_whatever_it_was_made_for(problem: Problem, trace: Trace) -> None:
    """A plan for tokens that go straight from layer to layer, replayed under dispatch."""
    other = Problem(problem.profile, problem.topology)
    plan = solve(other, "random", limits=Limits(work=1), workers=1).plan
    row = judge(problem, {"fit": trace}, {"other": plan}, workers=1)["other"]
    assert row.score == score(problem, plan).total != plan.score
    found = row.parts["fit"]
    assert found.evaluation is found.dispatch
    own = evaluate(plan, trace, problem.topology, execution="dispatch", workers=1)
    assert found.evaluation.remote_nodes == own.remote_nodes
    context = evaluate(plan, trace, problem.topology, execution="context_coherent", workers=1)
    assert found.context_coherent.cross_node_fraction == context.cross_node_fraction


def test_the_document_says_what_was_compared_under_what(problem: Problem, compared: Comparison) -> None:
    """Caps, topology, notes and the best plan; it is JSON as it is."""
    told = compared.as_dict()
    assert json.loads(json.dumps(told)) == told
    assert (told["load_cap"], told["layer_load_caps"]) == (1.5, {"1": 1.25})
    assert (told["slots_per_gpu"], told["engine"], told["notes"]) == (2, None, ["A note."])
    assert told["objective"]["execution"] == "dispatch"
    assert told["tokens"] == {"fit": PARAMS.num_tokens, "held_out": None}
    assert told["best"] == compared.best.name
    row = told["plans"]["eplb"]
    assert (row["score"], row["held_out"]) == (compared["eplb"].score, None)
    assert row["warnings"] == list(compared["eplb"].plan.warnings)
    assert row["fit"]["imbalance_max_over_mean"] == compared["eplb"].parts["fit"].evaluation.imbalance_max_over_mean


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="needs pandas")
def test_a_frame_has_a_row_per_plan_and_part(problem: Problem, compared: Comparison, trace: Trace) -> None:
    """With the figures as columns."""
    plans = {row.name: row.plan for row in compared.rows}
    table = judge(problem, {"fit": trace, "held_out": trace}, plans, workers=1).to_frame()
    assert list(zip(table["plan"], table["part"], strict=True)) == [
        (name, part) for name in ("contiguous", "eplb") for part in ("fit", "held_out")
    ]
    assert table["fanout_nodes"][0] == compared["contiguous"].parts["fit"].evaluation.fanout_nodes


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="needs pandas")
def test_a_frame_of_counts_has_the_expected_loads() -> None:
    """A row per plan, as there are no parts."""
    load = np.random.default_rng(0).uniform(1, 9, (2, 8))
    counts = load_counts(load)
    own = Problem(Profile.of(counts), Topology.parse("1x4"), objective=Objective(execution="dispatch", dedup="none"))
    found = judge(own, {}, {"plan": solve(own, "contiguous", limits=Limits(work=1), workers=1).plan}, workers=1)
    table = found.to_frame()
    share = (load / load.sum(axis=1, keepdims=True)).reshape(2, 4, 2).sum(axis=2)
    assert table["imbalance_max_over_mean"].tolist() == pytest.approx([share.max(axis=1).mean() * 4])


def test_a_comparison_fits_ten_lines_and_equals_one_like_it(problem: Problem, trace: Trace) -> None:
    """However many plans there are."""
    plan = solve(problem, "contiguous", workers=1).plan
    one, same = (judge(problem, {"fit": trace}, {f"plan{n}": plan for n in range(20)}, workers=1) for _ in range(2))
    for shown in (one, one["plan0"], one["plan0"].parts["fit"]):
        assert len(repr(shown).splitlines()) <= 10
    assert "plan0: score" in repr(one)
    assert "plan19" in one._repr_html_()
    assert one == same
    assert hash(one) == hash(same)
    assert one != judge(problem, {"fit": trace}, {"plan0": plan}, workers=1)


def test_a_plan_of_other_layers_is_refused_without_tokens(problem: Problem) -> None:
    """Where nothing is replayed, too."""
    plan = solve(problem, "contiguous", workers=1).plan
    with pytest.raises(InputError) as error:
        judge(problem, {}, {"other": plan.replacing(layer_ids=np.array([4, 5, 6]))})
    assert [item.code for item in error.value.violations] == ["plan_differs"]
