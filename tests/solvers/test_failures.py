"""Plans for what is left, schedules of failures, and Lazarus's placement."""

from __future__ import annotations

import numpy as np
import pytest

from placement import Objective, Plan, Topology, prove_survival
from solvers import FailureEvent, Lazarus, Limits, degraded, simulate_failures, solve
from solvers.failures.schedule import events_of
from tests.builders.problems import problem_of, random_table
from traces import InputError
from traces.synthetic import Synthetic


def plan_on(topology: Topology, table: np.ndarray, experts: int) -> Plan:
    """Return a plan of a map."""
    layers = np.arange(len(table))
    return Plan.of(table, layer_ids=layers, num_experts=experts, gpus_per_node=topology.gpus_per_node)


def test_what_is_left_holds_every_expert_with_one_slot_changed_per_lost_one() -> None:
    """On random maps, for every GPU that may fail; where the slots are too few, that is said."""
    rng = np.random.default_rng(0)
    topology, seen = Topology.parse("2x2"), set()
    for _ in range(40):
        slots = int(rng.integers(2, 5))
        plan = plan_on(topology, random_table(rng, 2, 6, 4, slots, "either"), 6)
        for gpu in range(4):
            found = degraded(plan, topology, [gpu])
            enough = 3 * slots >= 6
            assert found.possible == enough
            seen.add((enough, len(found.reloads) == found.lost))
            if found.plan is None:
                continue
            assert found.plan.num_gpus == 3
            assert (found.plan.replicas > 0).all()
            before = plan.physical_to_logical_map.reshape(2, 4, slots)[:, list(found.ranks)]
            assert (found.plan.physical_to_logical_map.reshape(2, 3, slots) != before).sum() == len(found.reloads)
            assert sum(each.lost for each in found.reloads) == found.lost
            assert len(found.reloads) >= found.lost
    assert (True, True) in seen


def test_room_is_made_where_no_copy_can_be_spared() -> None:
    """Experts 2 and 3 are lost; the copies to spare are of expert 0, and on the GPU that has no other."""
    topology = Topology.parse("1x3")
    plan = plan_on(topology, np.array([[0, 1, 0, 1, 2, 3]]), 4)
    found = degraded(plan, topology, [2])
    assert found.possible
    assert sorted(each.expert for each in found.reloads if each.lost) == [2, 3]
    assert found.plan is not None
    assert sorted(set(found.plan.physical_to_logical_map.ravel().tolist())) == [0, 1, 2, 3]


def test_a_schedule_goes_back_to_the_plan_when_all_have_joined() -> None:
    """Losses as counted by hand; the last state is the plan's own."""
    topology = Topology.parse("2x1")
    plan = plan_on(topology, np.array([[0, 1, 2, 0, 1, 3]]), 4)
    events = [FailureEvent(at=2.0, what="join", number=1), FailureEvent(at=1.0, what="fail", number=1)]
    with pytest.raises(InputError):  # 3 slots are too few, but only the order is wrong when it begins with a join
        simulate_failures(plan, topology, "nodes", [FailureEvent(at=1.0, what="join", number=1)])
    fails, joins = simulate_failures(plan, topology, "nodes", events)
    assert (fails.gpus, fails.lost, fails.serving) == (1, 1, False)
    assert (joins.gpus, joins.serving, joins.loaded) == (2, True, 3)
    assert joins.largest_load == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ([], "schedule_form"),
        ([{"at": 1, "fail": 0, "join": 1}], "schedule_form"),
        ([{"at": "x", "fail": 0}], "schedule_form"),
    ],
)
def test_other_schedules_are_refused(content: object, code: str) -> None:
    """With what is wrong."""
    with pytest.raises(InputError) as caught:
        events_of(content)
    assert caught.value.violations[0].code == code


def test_lazarus_puts_experts_of_like_counts_on_the_same_nodes() -> None:
    """With room for two copies of each, all survive a node, and few pairs of nodes are deadly."""
    source = Synthetic(num_layers=2, num_experts=8, top_k=2, num_tokens=400, seed=0, skew=0.0)
    problem = problem_of(source, "4x1", 4, Objective(execution="dispatch", dedup="none"))
    plan = solve(problem, Lazarus(), limits=Limits(work=100)).plan
    assert prove_survival(plan, problem.topology, "nodes=1").survives
    held = plan.replicas_on_gpu > 0
    assert (held.sum(axis=2) == 2).all()
    assert len(np.unique(held[0], axis=0)) == 2  # of six pairs of nodes
