"""Names of GPUs that move least: against all names, and the score is the same."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, Objective, Pin, Topology, relabel, score
from placement.moves.freedom import Freedom
from placement.moves.relabel import moved_experts, relabelled_table
from tests.builders.problems import dispatch, plan_of, problem_of, random_table
from traces.synthetic import Synthetic

TOKENS = Synthetic(num_layers=3, num_experts=8, top_k=2, num_tokens=400, seed=3)


def renamings(topology: Topology) -> list[list[int]]:
    """All names that change neither hop costs, speeds nor nodes."""
    gpus = range(topology.num_gpus)
    found = []
    for name in itertools.permutations(gpus):
        order = list(name)
        same = np.array_equal(topology.hop_cost[np.ix_(order, order)], topology.hop_cost)
        same &= np.array_equal(topology.speed[order], topology.speed)
        node = topology.node_of_gpu
        same &= np.array_equal(node[order][:, None] == node[order], node[:, None] == node)
        if same:
            found.append(order)
    return found


@given(seed=st.integers(0, 2**32), shape=st.sampled_from(["1x4", "2x2", "3x2", "1+2+2", "4x1"]), coupled=st.booleans())
@settings(max_examples=25, deadline=None)
def test_no_names_move_less(seed: int, shape: str, coupled: bool) -> None:
    """The names that are found move as few experts as the best of all names, for all layers or for each."""
    rng, topology = np.random.default_rng(seed), Topology.parse(shape)
    gpus, experts = topology.num_gpus, 8
    slots = -(-experts // gpus) + 1
    before, after = (random_table(rng, 2, experts, gpus, slots, "either") for _ in range(2))
    table, name = relabelled_table(before, after, experts, Freedom.of_topology(topology, coupled=coupled))
    cubes = after.reshape(2, gpus, slots)
    moved = np.array(
        [
            [moved_experts(before[[row]], cubes[[row]][:, order].reshape(1, -1), experts, gpus) for row in range(2)]
            for order in renamings(topology)
        ]
    )
    least = moved.sum(axis=1).min() if coupled else moved.min(axis=0).sum()
    assert moved_experts(before, table, experts, gpus) == least
    for row in range(2):
        assert name[row].tolist() in renamings(topology)
        renamed = np.sort(cubes[row, name[row]], axis=1)
        assert np.array_equal(np.sort(table[row].reshape(gpus, slots), axis=1), renamed)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_what_stays_keeps_its_slot(seed: int) -> None:
    """On every GPU as many slots as possible hold what they held; the plan that runs, shuffled, comes back."""
    rng = np.random.default_rng(seed)
    before, after = (random_table(rng, 2, 6, 4, 3) for _ in range(2))
    free = Freedom.of_topology(Topology.parse("2x2"))
    table, _ = relabelled_table(before, after, 6, free)
    for old, new in zip(before.reshape(-1, 3), table.reshape(-1, 3), strict=True):
        common = sum(min((old == expert).sum(), (new == expert).sum()) for expert in range(6))
        assert (old == new).sum() >= common
    shuffled = rng.permuted(before.reshape(2, 4, 3), axis=2)[:, [3, 2, 0, 1]].reshape(2, -1)
    assert np.array_equal(relabelled_table(before, shuffled, 6, free)[0], before)


@pytest.mark.parametrize(
    "objective", [Objective(), dispatch(dedup="none", replica_policy="same_node", imbalance_weight=5.0)]
)
def test_the_score_stays(objective: Objective) -> None:
    """The same arrangement under other names scores the same."""
    problem, rng = problem_of(TOKENS, "2x2", 3, objective), np.random.default_rng(1)
    running, target = (plan_of(problem, random_table(rng, 3, 8, 4, 3)) for _ in range(2))
    found = relabel(problem, running, target)
    assert found.exact_score
    assert found.moved_after < found.moved_before
    assert score(problem, found.plan).total == pytest.approx(score(problem, target).total, rel=1e-12)


@pytest.mark.parametrize(
    "fields",
    [
        {"constraints": Constraints(pins=(Pin(expert=0, gpu=1),))},
        {"topology": Topology.of((2, 1), name="uneven"), "slots": 4, "objective": dispatch(dedup="node")},
    ],
)
def test_names_that_matter_stay(fields: dict[str, Any]) -> None:
    """A pin names a GPU; entry GPUs of uneven nodes are not alike."""
    asked: dict[str, Any] = {"topology": "2x2", "slots": 3} | fields
    assert not Freedom.of(problem_of(TOKENS, **asked)).any


def test_a_slow_gpu_and_a_slow_link_have_their_names() -> None:
    """Only GPUs that are alike in speed and in every cost may change names."""
    free = Freedom.of_topology(Topology.of((2, 2), speed=[1, 1, 1, 0.5]))
    assert free.twins.tolist() == [0, 0, 0, 1]
    assert free.kind_of_node.tolist() == [0, 1]
    cost = np.ones((4, 4)) - np.eye(4)
    cost[0, 3] = 2
    free = Freedom.of_topology(Topology.of((4,), rank_cost_matrix=cost))
    assert free.twins.tolist() == [0, 1, 1, 3]
