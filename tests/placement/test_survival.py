"""What slots allow at best when failure domains fail, and what a map loses: against all failing sets and all maps."""

from __future__ import annotations

from itertools import combinations, product
from unittest.mock import patch

import numpy as np
import pytest

from placement import Constraints, Group, Objective, Plan, Problem, Survive, Topology, prove_survival
from placement.cost.feasibility import broken_constraints
from placement.survival.domains import failure_domains
from placement.survival.least import all_survive, least_lost, slots_needed
from tests.builders.problems import random_table
from traces import InputError, LoadCounts, Profile, Provenance

BY_LOAD = Objective(execution="dispatch", dedup="none")


def counts(experts: int) -> Profile:
    """Return loads 1, 2, ... of one layer."""
    load = np.arange(1, experts + 1, dtype=np.float64)[None]
    return Profile.of(LoadCounts(load=load, layer_ids=np.zeros(1, np.int64), provenance=Provenance(), digest="sha256:"))


def lost_at_worst(holders: list[set[int]], domains: int, failures: int) -> int:
    """Return the most experts that any failing set takes, by enumeration; `holders` are the domains of each expert."""
    return max(sum(held <= set(failing) for held in holders) for failing in combinations(range(domains), failures))


def least_by_enumeration(room: list[int], experts: int, failures: int) -> int:
    """Return the least loss to any failing set over all maps, by enumeration of what each domain holds."""
    subsets = [[mask for mask in range(1 << experts) if mask.bit_count() <= size] for size in room]
    held = np.array(list(product(*subsets)))  # (maps, D) experts as bits
    held = held[np.bitwise_or.reduce(held, axis=1) == (1 << experts) - 1]
    worst = np.zeros(len(held), int)
    for failing in combinations(range(len(room)), failures):
        left = [d for d in range(len(room)) if d not in failing]
        alive = np.bitwise_or.reduce(held[:, left], axis=1)
        worst = np.maximum(worst, experts - np.bitwise_count(alive.astype(np.uint64)))
    return int(worst.min())


def test_what_slots_allow_is_what_the_best_of_all_maps_does() -> None:
    """On 300 tiny cases, all maps and all failing sets enumerated."""
    rng = np.random.default_rng(0)
    cases = 0
    while cases < 300:
        experts, domains = int(rng.integers(1, 5)), int(rng.integers(2, 4))
        room = rng.integers(1, 4, domains)
        if room.sum() < experts:
            continue
        cases += 1
        failures = int(rng.integers(1, domains))
        assert all_survive(room, experts, failures) == (least_by_enumeration(room.tolist(), experts, failures) == 0)
        assert least_lost(room, experts) == least_by_enumeration(room.tolist(), experts, 1)


def test_a_map_is_refused_where_some_failing_set_takes_too_much() -> None:
    """The check of a map agrees with all failing sets."""
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(60):
        asked = Survive(unit="nodes", failures=int(rng.integers(1, 3)))
        if asked.failures == 1:
            asked = Survive(unit="nodes", failures=1, lost=int(rng.integers(0, 3)))
        problem = Problem(counts(4), Topology.parse("2+1+2"), 4, BY_LOAD, Constraints(survive=asked))
        table = random_table(rng, 1, 4, 5, 4, "either")
        node = problem.topology.node_of_gpu[np.arange(20) // 4]
        holders = [set(node[table[0] == expert].tolist()) for expert in range(4)]
        broken = {violation.code for violation in broken_constraints(problem, table).found}
        lost = lost_at_worst(holders, 3, asked.failures)
        assert ("not_survived" in broken) == (lost > (asked.lost or 0))
        seen.add("not_survived" in broken)
    assert seen == {True, False}


def test_the_worst_failing_set_is_that_of_an_enumeration() -> None:
    """Verdict, set and loss on 60 random maps; of too many sets, no more than that is told."""
    rng = np.random.default_rng(2)
    verdicts = set()
    for _ in range(60):
        topology, failures = Topology.parse("1+2+1+2"), int(rng.integers(1, 4))
        table = random_table(rng, 2, 3, 6, 2, "either")
        plan = Plan.of(table, layer_ids=[0, 1], num_experts=3, gpus_per_node=topology.gpus_per_node)
        found = prove_survival(plan, topology, f"nodes={failures}")
        node = topology.node_of_gpu[np.arange(12) // 2]
        holders = [set(node[row == expert].tolist()) for row in table for expert in range(3)]
        lost = lost_at_worst(holders, 4, failures)
        assert found.worst_is_exact
        assert found.lost == lost == sum(held <= set(found.worst) for held in holders if lost)
        assert found.survives == (lost == 0)
        verdicts.add(found.survives)
        with patch("placement.survival.survival.MAX_SETS", 0):
            searched = prove_survival(plan, topology, f"nodes={failures}")
        assert searched.lost <= lost
        assert searched.survives == found.survives
    assert verdicts == {True, False}


def test_loads_tell_what_share_of_the_assignments_is_lost() -> None:
    """Expert 1 of 4 units of load is on node 0 only, expert 0 of 1 on both."""
    plan = Plan.of([[0, 1, 0, 2]], layer_ids=[0], num_experts=3, gpus_per_node=(1, 1))
    found = prove_survival(plan, Topology.parse("2x1"), "nodes=1", load=[[1.0, 4.0, 3.0]])
    assert found.worst == (0,)
    assert found.lost_load == pytest.approx(0.5)
    assert "node 0 (GPUs 0) takes the last copy of 1 experts" in found.sentence


def test_too_few_slots_are_told_with_what_is_needed() -> None:
    """The numbers of the refusal: 256 experts, 320 slots on 8 nodes."""
    profile = counts(256)
    with pytest.raises(InputError) as caught:
        Problem(profile, Topology.parse("8x8"), 5, BY_LOAD, Constraints(survive=Survive(unit="nodes")))
    told = caught.value.violations[0]
    assert told.code == "survive_too_few_slots"
    assert "need 512 slots" in told.detail
    assert "at least 192 experts" in told.detail
    assert "256 redundant experts (8 slots per GPU)" in told.remedy
    assert "24 experts" in told.remedy
    best = Constraints(survive=Survive(unit="nodes", lost=None))
    rule = Problem(profile, Topology.parse("8x8"), 5, BY_LOAD, best).sizes.survival
    assert rule is not None
    assert rule.lost == 24


def test_domains_follow_the_topology() -> None:
    """Hosts may be smaller than nodes; links cut off a node, or a GPU where there is one node."""
    racks = Topology.of((4, 4), gpus_per_host=2)
    assert failure_domains(racks, "hosts").tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert failure_domains(racks, "links").tolist() == racks.node_of_gpu.tolist()
    assert failure_domains(Topology.parse("1x4"), "links").tolist() == [0, 1, 2, 3]
    assert slots_needed(failure_domains(racks, "nodes"), 8, 1) == 2
    assert slots_needed(failure_domains(racks, "nodes"), 8, 2) is None


@pytest.mark.parametrize(
    ("asked", "also", "code"),
    [
        ("nodes=2", {}, "survive_none_left"),
        ("nodes=0", {}, "failures_range"),
        ("gpus=2,lost=1", {}, "lost_range"),
        ("nodes=1", {"groups": (Group(experts=(0, 1)),)}, "survive_beside"),
        ("gpus=1", {"extra_replicas": 3}, "survive_beside"),
        ("nodes=1,lost=0", {}, "survive_too_few_slots"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: str, also: dict[str, object], code: str) -> None:
    """Each refusal has its code."""
    constraints = Constraints(survive=Survive.parse(asked), **also)  # type: ignore[arg-type]  # as parametrised
    with pytest.raises(InputError) as caught:
        Problem(counts(4), Topology.parse("2x2"), 1, BY_LOAD, constraints)
    assert code in {violation.code for violation in caught.value.violations}


@pytest.mark.parametrize("text", ["nodes=1", "gpus=2", "links=1", "nodes=1,lost=least", "hosts=1,lost=3"])
def test_the_form_is_read_as_it_is_written(text: str) -> None:
    """Text and object are the same."""
    assert str(Survive.parse(text)) == text


@pytest.mark.parametrize("text", ["", "racks=1", "nodes=", "nodes=-1", "nodes=1,lost=", "nodes=1;lost=2"])
def test_other_forms_are_refused(text: str) -> None:
    """With the form in the error."""
    with pytest.raises(InputError) as caught:
        Survive.parse(text)
    assert caught.value.violations[0].code == "survive_form"
