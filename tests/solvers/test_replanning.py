"""Re-plans: few moves with most of the gain, leaving it where that is right, and machines that have changed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import solvers
from placement import Constraints, Plan, Survive, prove_survival, relabel, score
from placement.moves.carry import carry
from placement.moves.relabel import moved_experts
from placement.plan.plan import replicas_on_gpu
from solvers.fronts.few import few_moves
from solvers.replanning.judging import thinned
from solvers.replanning.repair import repaired, room_beside
from solvers.replanning.verdict import Bill, verdict_of
from solvers.searching.limits import Limits
from traces import InputError, LoadCounts, Profile, Trace
from traces.synthetic import Synthetic, generate

QUICK = Limits(work=50_000)
ASKED: dict[str, Any] = {"engine": "sglang", "solver": "load_balance", "limits": QUICK}
TIMED = ASKED | {"machine": "h200:2x2", "model": "qwen3-30b-a3b", "tokens_per_gpu": 256}


@cache
def traffic(seed: int) -> Trace:
    """Return routing of its own popularity."""
    shape = Synthetic(num_layers=2, num_experts=128, top_k=8, num_tokens=4096, skew=0.8, affinity=0, seed=seed)
    return generate(replace(shape, tokens_per_sequence=64))


@cache
def running() -> Plan:
    """Return a plan for the first traffic."""
    study = solvers.Study.of(traffic(1), "2x2", engine="sglang", redundant_experts=8)
    return study.solve("load_balance", limits=QUICK).plan


def test_few_moves_reach_the_score_of_a_plan_that_is_found_anew() -> None:
    """At least 40 % fewer than under the names of the search, at no worse a score."""
    problem = solvers.Study.of(traffic(2), "2x2", engine="sglang", redundant_experts=8).problem
    found = solvers.solve(problem, "load_balance", limits=QUICK).plan
    named = relabel(problem, running(), found)
    held = running().physical_to_logical_map
    way = few_moves(problem, held, [named.plan.physical_to_logical_map], 9)
    wanted = score(problem, found).total
    fewest = min(moved_experts(held, table, 128, 4) for table in way if score(problem, table).total <= wanted * 1.001)
    assert fewest <= 0.6 * named.moved_before
    assert len({moved_experts(held, table, 128, 4) for table in way}) > 5


def test_a_change_of_traffic_pays_over_an_hour() -> None:
    """In milliseconds; steps lead to the plan, the front has what lies between, and the budget of steps holds."""
    found = solvers.replan(running(), traffic(2), step_experts=6, **TIMED)
    assert (found.verdict, found.unit) == ("replan", "ms per step")
    assert found.gain_interval is not None
    assert found.gain_interval[0] * 3600 > found.cost_s
    moved = [point.moved_experts for point in found.front]
    assert moved == sorted(moved)
    assert moved[0] == 0
    assert sum(point.chosen for point in found.front) == 1
    assert np.array_equal(found.rollout.steps[-1].table, found.plan.physical_to_logical_map)
    assert all(step.moves.experts <= 6 for step in found.rollout.steps)
    assert found.moves.experts < found.with_relabelling <= found.without_relabelling
    content = found.as_dict()
    assert content["cost_s"] == pytest.approx(found.stall_s + found.transfer_s)  # type: ignore[operator]
    assert len(content["steps"]) == len(found.plans)
    assert "Re-plan" in repr(found)


@pytest.mark.parametrize("asked", [{"horizon_s": 1.0}, {"horizon_s": 0.0}, {"stall_ms": 1e6}])
def test_what_does_not_pay_is_left(asked: dict[str, float]) -> None:
    """The same traffic, for a second, or with a stall of a quarter of an hour."""
    assert solvers.replan(running(), traffic(2), **(TIMED | asked)).verdict == "leave_it"


def test_nothing_to_gain_nothing_moved() -> None:
    """A plan that is as good as those that are found on the same traffic."""
    found = solvers.replan(running(), traffic(1), **TIMED)
    assert found.verdict == "leave_it"
    assert found.gain_fraction is not None
    assert found.gain_fraction < 0.01


def test_tokens_of_the_other_phase_stand_for_one() -> None:
    """A recording of prefill alone is timed in passes of decode as well, as advice does, and it is told."""
    found = solvers.replan(running(), traffic(2), **TIMED, phase="decode")
    assert any("no tokens of decode" in reason for reason in found.reasons)


def test_counts_give_a_score() -> None:
    """Half of the counts judge; what is as large as the noise is left."""
    counts = [LoadCounts.of(np.asarray(Profile.of(traffic(seed)).load)) for seed in (1, 2)]
    same, other = (solvers.replan(running(), each, **ASKED) for each in counts)
    assert (same.verdict, other.verdict) == ("leave_it", "replan")
    assert other.unit == "score"
    assert other.saved_s is None
    first, second = thinned(counts[0], 0.5, 0)
    assert np.array_equal(first.load + second.load, counts[0].load)


def test_counts_on_a_machine_are_timed() -> None:
    """The expected pass gains about what passes of tokens do; counts of the same traffic leave the plan."""
    counts = [LoadCounts.of(np.asarray(Profile.of(traffic(seed)).load)) for seed in (1, 2)]
    same, other = (solvers.replan(running(), each, **TIMED) for each in counts)
    assert (same.verdict, other.verdict) == ("leave_it", "replan")
    assert other.unit == "ms per step"
    tokens = solvers.replan(running(), traffic(2), **TIMED)
    assert other.gain_fraction == pytest.approx(tokens.gain_fraction, abs=0.02)
    with pytest.raises(InputError, match="Name the model that was recorded"):
        solvers.replan(running(), counts[0], **(TIMED | {"model": "deepseek-v3"}))


def test_a_dead_gpu_forces_a_plan() -> None:
    """What is left keeps its slots as far as it can; lost experts come from the checkpoint, in the first step."""
    found = solvers.replan(running(), traffic(1), dead_gpus=(2,), **TIMED)
    assert found.verdict == "replan"
    assert found.before is None
    assert found.plan.gpus_per_node == (2, 1)
    assert found.moves.from_checkpoint == len(found.carried.lost) > 0
    assert found.carried.rank_before.tolist() == [0, 1, 3]
    held = replicas_on_gpu(found.carried.table, 128, 3) > 0
    kept = held & (replicas_on_gpu(found.plan.physical_to_logical_map, 128, 3) > 0)
    assert kept.sum() > 0.9 * held.sum()
    assert any("live copy" in reason for reason in found.reasons)


def test_a_new_node_takes_replicas() -> None:
    """The ranks that were there are ranks 0 to 3; the new ones are filled, as the engine wants every slot full."""
    found = solvers.replan(running(), traffic(1), topology="3x2", **ASKED)
    assert found.plan.num_gpus == 6
    assert found.carried.rank_before.tolist() == [0, 1, 2, 3, -1, -1]
    assert found.moves.experts >= 2 * 2 * 34
    assert (found.plan.physical_to_logical_map >= 0).all()


def test_fewer_slots_drop_replicas_first() -> None:
    """From 34 slots to 32: redundant experts go, and hardly any expert moves."""
    carried = carry(running(), solvers.Study.of(traffic(1), "2x2").problem.topology)
    problem = solvers.Study.of(traffic(1), "2x2", slots_per_gpu=32).problem
    table = repaired(problem, carried)
    assert table is not None
    dropped = int(running().replicas.sum() - 2 * 128)
    assert dropped == 2 * 8
    assert moved_experts(carried.table, table, 128, 4) <= dropped


def survivor() -> dict[str, Any]:
    """Return a request in which every expert has to survive a node."""
    return ASKED | {"constraints": Constraints(survive=Survive.parse("nodes=1")), "topology": "2x2"}


def test_a_plan_that_does_not_survive_is_left_with_few_moves() -> None:
    """The traffic is the same, but every expert has to survive a node: copies are added, and no more than that."""
    study = solvers.Study.of(traffic(1), "2x2", engine="sglang", slots_per_gpu=66)
    before = study.solve("load_balance", limits=QUICK).plan
    found = solvers.replan(before, traffic(1), **survivor())
    assert not prove_survival(before, study.problem.topology, "nodes=1").survives
    assert prove_survival(found.plan, study.problem.topology, "nodes=1").survives
    assert found.verdict == "replan"
    assert found.reasons[0].startswith("The plan that runs: does not survive")
    assert 0 < found.moves.experts <= found.with_relabelling


def test_every_step_survives() -> None:
    """Steps of few experts, one at a time on a GPU, leave no plan on the way less safe than it has to be."""
    study = solvers.Study.of(
        traffic(1), "2x2", engine="sglang", slots_per_gpu=66, constraints=survivor()["constraints"]
    )
    before = study.solve("load_balance", limits=QUICK).plan
    found = solvers.replan(before, traffic(2), step_experts=8, staging_experts=1, **survivor())
    assert len(found.plans) > 3
    assert all(prove_survival(plan, study.problem.topology, "nodes=1").survives for plan in found.plans)


def test_room_beside_the_slots_after_a_loss() -> None:
    """What replaces copies that others keep needs none; two GPUs that exchange what nobody else has need it."""
    found = solvers.replan(running(), traffic(1), dead_gpus=(2,), staging_experts=1, topology="2x2", **ASKED)
    assert found.rollout.steps[0].staging == 0
    assert found.rollout.staging <= 1
    before = np.array([[0, 1, 2, 3]], np.int32)
    assert room_beside(before, np.array([[0, 2, 1, 3]], np.int32), 4, 2) == 1
    assert room_beside(np.array([[0, 1, 1, -1]], np.int32), np.array([[0, 2, 1, 3]], np.int32), 4, 2) == 0


@pytest.mark.parametrize(
    ("asked", "codes"),
    [
        ({"machine": "h200:2x2", "topology": "2x2"}, ["without_effect"]),
        ({"tokens_per_gpu": 5, "model": "qwen3-30b-a3b", "expert_bytes": 5}, ["without_effect", "without_effect"]),
        ({"step_bytes": 5, "step_experts": 5}, ["budget_twice", "no_expert_bytes"]),
        ({"slots_per_gpu": 40, "redundant_experts": 8}, ["slots_twice"]),
        ({"hold_out": 0.0}, ["hold_out_range"]),
        ({"horizon_s": 60.0, "phase": "decode", "machine": "h200:2x2"}, ["without_effect", "without_effect"]),
    ],
)
def test_what_has_no_effect_is_refused(asked: dict[str, Any], codes: list[str]) -> None:
    """All at once."""
    with pytest.raises(InputError) as caught:
        solvers.ReplanRequest(**asked)
    assert [item.code for item in caught.value.violations] == codes


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"topology": "1x2"}, "fewer_gpus"),
        ({"dead_gpus": (0, 1, 2, 3)}, "no_gpus"),
        ({"dead_gpus": (2,), "max_moves": 3}, "max_moves_range"),
        ({"redundant_experts": 9}, "redundant_experts_split"),
        ({"expert_bytes": 1000, "step_bytes": 1000}, "step_too_small"),
    ],
)
def test_what_does_not_fit_is_refused(asked: dict[str, Any], code: str) -> None:
    """A machine that is smaller than the plan, and budgets below the least."""
    with pytest.raises(InputError) as caught:
        solvers.replan(running(), traffic(2), **(ASKED | asked))
    assert [item.code for item in caught.value.violations] == [code]


def test_few_sequences_tell_nothing() -> None:
    """The rule wants eight sequences, and a gain that is above the cost or known to be below."""
    measure: Any = type("M", (), {"in_time": True, "least_groups": 8})()
    judged: Any = type("J", (), {"groups": 7, "interval": (0.1, 0.2), "half": 0.05, "per_expert": 100.0})()
    bill = Bill(stall_s=1.0, transfer_s=0.0, horizon_s=100.0)
    assert verdict_of(judged, measure, bill, 5) == "not_enough_data"
    judged.groups = 8
    assert verdict_of(judged, measure, bill, 5) == "replan"
    judged.interval = (0.0, 0.1)
    assert verdict_of(judged, measure, bill, 5) == "not_enough_data"
    judged.half = 0.01
    assert verdict_of(judged, measure, bill, 5) == "leave_it"
