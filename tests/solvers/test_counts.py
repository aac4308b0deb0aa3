"""Planning from counts: dumps that are held out, choices that counts can carry, a search by load, layers to fill in."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement import Constraints, Objective, Plan, Problem, Topology, expected_loads, lower_bound, score
from solvers import Limits, Study, solve
from solvers.sources.source import part_of, split_dumps
from tests.builders.traces import random_trace
from traces import InputError, LoadCounts, ModelLayout, Profile, load

DUMPS = np.random.default_rng(1).integers(1, 900, (10, 2, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten dumps."""
    path = tmp_path_factory.mktemp("dumps")
    for number, counts in enumerate(DUMPS):
        (path / f"d{number}.json").write_text(json.dumps(counts.tolist()))
    return path


def counts_of(array: Any, **fields: Any) -> LoadCounts:
    """Return counts in memory."""
    return LoadCounts.of(array, **fields)


@pytest.mark.parametrize(("share", "fitted"), [(None, 5), (0.1, 9), (0.9, 1), (0.99, 1), (0.01, 9)])
def test_the_last_dumps_are_held_out(folder: Path, share: float | None, fitted: int) -> None:
    """In order of time; at least one is in each part."""
    counts = load(folder)
    assert isinstance(counts, LoadCounts)
    fit, held, notes = split_dumps(counts, share)
    assert held is not None
    assert np.array_equal(fit.load, DUMPS[:fitted].sum(axis=0))
    assert np.array_equal(held.load, DUMPS[fitted:].sum(axis=0))
    assert f"the first {fitted} of 10 dumps" in notes[-2]
    assert split_dumps(counts, 0)[1] is None


def test_sizes_of_passes_without_effect_are_refused(folder: Path) -> None:
    """Before the search: counts have no passes, and a part may have too few tokens for one."""
    with pytest.raises(InputError, match="pass_tokens: These are counts"):
        Study.of(folder, "1x4", engine="vllm", pass_tokens=(64,))
    tokens = random_trace(1, 100, 2, 8)
    with pytest.raises(InputError, match="part held out holds 36 tokens") as error:
        Study.of(tokens, "1x4", hold_out=0.5, pass_tokens=(20, 51))
    assert error.value.violations[0].pointer == "/pass_tokens/1"


def test_a_study_judges_a_plan_at_every_time(folder: Path) -> None:
    """The figures of each dump are those of its counts alone."""
    study = Study.of(folder, "1x4", engine="vllm", hold_out=0.9)
    assert np.array_equal(study.problem.profile.load, DUMPS[0])
    plan = study.solve(limits=Limits(work=2_000)).plan
    row = study.compare(plan=plan)["plan"]
    assert [dump.part for dump in row.dumps] == ["fit"] + 9 * ["held_out"]
    for dump, counts in zip(row.dumps, DUMPS, strict=True):
        load_of_gpu = np.stack([layer @ held for layer, held in zip(counts, plan.replicas_on_gpu, strict=True)])
        wanted = float((load_of_gpu.max(axis=1) / load_of_gpu.mean(axis=1)).mean())
        assert dump.loads.imbalance_max_over_mean == pytest.approx(wanted)
    document = study.compare(plan=plan).as_dict()["plans"]["plan"]
    assert len(document["dumps"]) == 10
    assert set(document["counts"]) == {"fit", "held_out"}


def test_counts_of_one_time_can_not_be_held_out() -> None:
    """The remedy says that dumps over time can."""
    with pytest.raises(InputError, match="dumps over time"):
        Study.of(counts_of(DUMPS[0]), "1x4", hold_out=0.5)
    chosen, _ = part_of(counts_of(DUMPS[0]), "all", None, "c")
    assert isinstance(chosen, LoadCounts)


def test_nothing_said_is_chosen_by_what_counts_can_carry() -> None:
    """A dispatch with a message per expert, balanced; a note tells."""
    study = Study.of(counts_of(DUMPS[0]), "1x4")
    objective = study.problem.objective
    assert (objective.execution, objective.dedup) == ("dispatch", "none")
    assert objective.imbalance_weight
    assert any("by load" in note for note in study.notes)


def test_what_needs_tokens_is_told_all_at_once() -> None:
    """One error names every option."""
    objective = Objective(execution="dispatch", dedup="gpu", ownership="measured", activated_weight=1.0)
    with pytest.raises(InputError) as error:
        Study.of(
            counts_of(DUMPS[0]),
            "1x4",
            engine="sglang",
            objective=objective,
            constraints=Constraints(load_cap=1.1, load_quantile=0.9),
        )
    found = {violation.pointer for violation in error.value.violations}
    assert found == {
        "/objective/dedup",
        "/objective/ownership",
        "/objective/activated_weight",
        "/constraints/load_quantile",
    }


def problem_of(seed: int, topology: str = "1x4", slots: int = 5, policy: Any = "fair", **fields: Any) -> Problem:
    """Return counts of 3 layers of 16 experts, with slots to spare."""
    counts = np.random.default_rng(seed).gamma(0.5, 1, (3, 16)) * 1000 + 1
    objective = Objective(execution="dispatch", dedup="none", replica_policy=policy)
    return Problem(Profile.of(counts_of(counts)), Topology.parse(topology), slots, objective=objective, **fields)


@pytest.mark.parametrize("policy", ["fair", "same_gpu", "same_node"])
@pytest.mark.parametrize("topology", ["1x4", "2x2"])
def test_auto_goes_on_searching_by_load(policy: str, topology: str) -> None:
    """It beats EPLB's plan, and never its own bound."""
    problem = problem_of(3, topology, policy=policy)
    eplb = solve(problem, "eplb", limits=Limits(work=1)).score.total
    found = solve(problem, "auto", limits=Limits(work=60_000))
    assert found.score.total < eplb - 1e-6
    assert found.plan.bound is not None
    assert lower_bound(problem) <= found.plan.bound <= found.score.total
    assert found.score.total == pytest.approx(score(problem, found.plan).total)


def test_the_search_by_load_keeps_a_cap_and_repeats() -> None:
    """With a work limit, the number of workers changes nothing."""
    problem = problem_of(5, constraints=Constraints(load_cap=1.05))
    plans = [solve(problem, "load_search", limits=Limits(work=40_000), workers=workers) for workers in (1, 3)]
    assert np.array_equal(plans[0].plan.physical_to_logical_map, plans[1].plan.physical_to_logical_map)
    assert plans[0].score["load_excess"].value == pytest.approx(0, abs=1e-9)


def test_replicas_taken_in_turn_can_not_keep_tokens_at_home() -> None:
    """Under the fair policy the traffic is certain, whatever the plan: the bound knows it."""
    problem = problem_of(1)
    table = solve(problem, "load_balance", limits=Limits(work=1)).plan
    assert score(problem, table)["traffic"].value == pytest.approx(0.75)
    assert lower_bound(problem) >= 0.75 - 1e-9


def test_expected_loads_are_those_of_the_score() -> None:
    """For the profile's own counts; other experts, layers and machines are refused together."""
    problem = problem_of(2)
    plan = solve(problem, "load_balance", limits=Limits(work=1)).plan
    loads = expected_loads(plan, counts_of(problem.profile.load), problem.topology)
    assert loads.imbalance_max_over_mean - 1 == pytest.approx(score(problem, plan)["imbalance"].value)
    with pytest.raises(InputError) as error:
        expected_loads(plan, counts_of(np.ones((3, 4)), layer_ids=[7, 8, 9]), Topology.parse("1x8"))
    codes = {violation.code for violation in error.value.violations}
    assert codes == {"num_experts_differ", "layers_differ", "num_gpus_differ"}


@pytest.fixture(scope="module")
def partial_plan() -> Plan:
    """Make a plan from counts whose layers 0 and 2 have none."""
    counts = np.random.default_rng(0).integers(1, 99, (4, 8)).astype(float)
    whole = LoadCounts.of(counts[[1, 3]], layer_ids=[1, 3])
    object.__setattr__(whole, "unrecorded", (0, 2))
    return Study.of(whole, "1x4", engine="sglang").solve("load_balance", limits=Limits(work=1)).plan


def test_an_export_fills_in_layers_that_the_recording_lacks(partial_plan: Plan) -> None:
    """Layers without counts get the default layout, as a note says; others that are missing are still refused."""
    content, notes = exported(partial_plan, "sglang", ModelLayout.of(4, num_experts=8))
    rows = json.loads(content)["physical_to_logical_map"]
    assert rows[0] == rows[2] == list(range(8))
    assert any("contiguous layout" in note for note in notes)
    with pytest.raises(InputError, match=r"MoE layers \[4\] of the model"):
        exported(partial_plan, "sglang", ModelLayout.of(5, num_experts=8))
    dense = ModelLayout.of(4, moe_layers=(1, 3), num_experts=8)
    assert not any("contiguous layout" in note for note in exported(partial_plan, "sglang", dense)[1])


def test_a_file_that_counts_moe_layers_needs_the_model(partial_plan: Plan) -> None:
    """Whether layers without counts are MoE layers decides what the rows are."""
    plan = Plan.of(
        partial_plan.physical_to_logical_map,
        layer_ids=[2, 3],
        num_experts=8,
        gpus_per_node=(4,),
        provenance={"trace": [{"unrecorded": [0, 1]}]},
    )
    with pytest.raises(InputError, match="had no counts in the recording"):
        exported(plan, "eplb", None)


def exported(plan: Plan, name: str, model: ModelLayout | None) -> tuple[bytes, tuple[str, ...]]:
    """Write an engine's file."""
    from placement.exports import EXPORTS, Context

    export = next(item for item in EXPORTS if item.is_named(name))
    written = export.write(plan, Context(model=model))
    return written.content, written.notes
