"""Steps between plans: every state is a plan within memory, no expert is ever lost, and the end is the target."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Plan, Topology
from placement.moves.carry import carry
from placement.moves.links import Links
from placement.moves.rollout import rollout
from placement.plan.plan import replicas_on_gpu
from tests.builders.problems import random_table
from traces import InputError

NODES = np.array([0, 0, 1, 1])


@given(
    seed=st.integers(0, 2**32),
    budget=st.sampled_from([None, 4, 5, 9]),
    staging=st.sampled_from([None, 1, 2]),
    spare=st.sampled_from(["empty", "replicas", "either"]),
)
@settings(max_examples=500, deadline=None)
def test_every_state_is_valid(seed: int, budget: int | None, staging: int | None, spare: str) -> None:
    """For random pairs: all experts are there at all times, no GPU has more than its slots and what it has staged."""
    rng = np.random.default_rng(seed)
    experts, slots, layers = int(rng.integers(4, 9)), 3, 2
    start, target = (random_table(rng, layers, experts, 4, slots, spare) for _ in range(2))  # type: ignore[arg-type]
    found = rollout(start, target, experts, NODES, step_experts=budget, staging=staging)
    tables = list(found.tables())
    assert np.array_equal(tables[0], start)
    assert np.array_equal(tables[-1], target)
    counts = [replicas_on_gpu(table, experts, 4) for table in tables]
    most, least = np.maximum(counts[0], counts[-1]), np.minimum(counts[0], counts[-1]).sum(axis=2)
    for step, before, after in zip(found.steps, counts, counts[1:], strict=False):
        Plan.of(step.table, layer_ids=range(layers), num_experts=experts, gpus_per_node=(2, 2))
        assert (after <= most).all()
        assert (after.sum(axis=2) >= least).all()
        received = ((after > 0) & (before == 0)).sum(axis=1)  # (L, G)
        assert received.max() == step.staging <= (staging or slots)
        assert received.sum() == step.moves.experts
        assert budget is None or step.moves.experts <= budget
        assert (step.moves.arrivals[:, 3] >= 0).all()
    assert budget is not None or staging is not None or len(found.steps) <= 1


def test_a_budget_that_is_too_small() -> None:
    """Three GPUs in a ring can't be cut: the least budget is named; no room at all is refused."""
    start, target = np.array([[0, 1, 2]]), np.array([[2, 0, 1]])
    with pytest.raises(InputError, match="at least 3"):
        rollout(start, target, 3, np.zeros(3, np.int64), step_experts=2)
    with pytest.raises(InputError, match="at least 1"):
        rollout(start, target, 3, np.zeros(3, np.int64), staging=0)
    assert len(rollout(start, target, 3, np.zeros(3, np.int64), step_experts=3).steps) == 1


def test_times_and_the_order_of_layers() -> None:
    """A step takes as long as its layers one after the other; the way back is timed as well."""
    rng = np.random.default_rng(0)
    start, target = (random_table(rng, 3, 8, 4, 2) for _ in range(2))
    links = Links.of(Topology.parse("2x2"))
    found = rollout(start, target, 8, NODES, step_experts=8, layers=[2, 0, 1], expert_bytes=10**9, links=links)
    tables = list(found.tables())
    changed = [np.flatnonzero((a != b).any(axis=1)).tolist() for a, b in pairwise(tables)]
    assert changed == [[2], [0], [1]]
    assert all(step.transfer_s and step.back_s for step in found.steps)


def test_a_plan_on_the_machine_of_today() -> None:
    """Dead ranks and new ones: what is left keeps its slots, and what nobody holds is listed."""
    plan = Plan.of([[0, 1, 2, 3, 0, 1, 2, 4]], layer_ids=[3], num_experts=5, gpus_per_node=(2, 2))
    found = carry(plan, Topology.parse("3x2"), (1, 3))
    assert found.table.tolist() == [[0, 1, 0, 1, -1, -1, -1, -1]]
    assert found.rank_before.tolist() == [0, 2, -1, -1]
    assert found.topology.gpus_per_node == (1, 1, 2)
    assert found.lost.tolist() == [[0, 2], [0, 3], [0, 4]]
    with pytest.raises(InputError) as caught:
        carry(plan, Topology.parse("1x2"), (4, 4))
    assert [item.code for item in caught.value.violations] == ["fewer_gpus", "gpu_range", "gpu_twice"]
