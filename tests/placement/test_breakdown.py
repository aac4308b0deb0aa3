"""A score taken apart: the parts add up to what the cost function says, and name what costs most."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement import Constraints, Objective, Problem, Topology, evaluate, lower_bound
from placement.cost.bounds import load_floor
from placement.cost.breakdown import break_down
from placement.cost.shares import expected_gpu_load
from placement.plan.plan import replicas_on_gpu
from tests.builders.problems import dispatch, plan_of, problem_of, random_table
from tests.builders.traces import random_trace

TOKENS, LAYERS, EXPERTS = 40, 3, 6
FLAT, HOPS = Topology.parse("1x4"), Topology.parse("2x2")
OBJECTIVES = (
    Objective(),
    dispatch(dedup="none", replica_policy="same_node"),
    dispatch(dedup="gpu", replica_policy="same_node"),
    dispatch(dedup="node"),
)


def case(seed: int, objective: Objective, topology: Topology, *, replicas: bool = True) -> tuple[Problem, Any]:
    """Return a problem and a map of it."""
    rng = np.random.default_rng(seed)
    trace = random_trace(rng, TOKENS, LAYERS, EXPERTS)
    problem = problem_of(trace, topology, 3, replace(objective, imbalance_weight=1.0), Constraints(load_cap=1.1))
    return problem, random_table(rng, LAYERS, EXPERTS, problem.num_gpus, 3, "replicas" if replicas else "empty")


@given(seed=st.integers(0, 2**32), objective=st.sampled_from(OBJECTIVES), topology=st.sampled_from([FLAT, HOPS]))
def test_parts_add_up_to_the_score(seed: int, objective: Objective, topology: Topology) -> None:
    """Flows times hop costs are the traffic by layer; the means over layers are the load terms."""
    problem, table = case(seed, objective, topology)
    found = break_down(problem, table)
    terms = {term.name: term.value for term in found.score.terms}
    hops = (found.flow * topology.hop_cost).sum(axis=(1, 2))
    assert hops == pytest.approx(found.score.traffic_by_layer)
    assert hops.sum() == pytest.approx(terms["traffic"])
    assert found.load.max(axis=1) == pytest.approx(found.score.max_load)
    assert found.load_excess.mean() == pytest.approx(terms["load_excess"])
    assert max(0.0, found.load_spread.mean() - problem.spread_tolerance) == pytest.approx(terms["load_spread"])


@given(seed=st.integers(0, 2**32), objective=st.sampled_from(OBJECTIVES), topology=st.sampled_from([FLAT, HOPS]))
def test_bounds_of_layers_add_up_to_the_instant_bound(seed: int, objective: Objective, topology: Topology) -> None:
    """No layer of a plan has less traffic than its bound, and all of them together are the traffic's instant bound."""
    problem, table = case(seed, objective, topology)
    found = break_down(problem, table)
    assert (found.least_traffic <= found.score.traffic_by_layer + 1e-12).all()
    assert found.least_traffic.sum() + load_floor(problem) == pytest.approx(lower_bound(problem))


@given(seed=st.integers(0, 2**32), topology=st.sampled_from([FLAT, HOPS]))
def test_experts_and_pairs_add_up(seed: int, topology: Topology) -> None:
    """All pairs together are the traffic; a pair counts at both of its experts."""
    problem, table = case(seed, Objective(), topology)
    found = break_down(problem, table, top=10_000)
    traffic = found.score.traffic_by_layer.sum()
    assert sum(pair.traffic for pair in found.pairs) == pytest.approx(traffic)
    assert sum(expert.traffic for expert in found.experts) == pytest.approx(2 * traffic)
    costs = [pair.traffic for pair in found.pairs]
    assert costs == sorted(costs, reverse=True)


def test_experts_of_a_dispatch_add_up() -> None:
    """Without deduplication an assignment is one expert's; with it a message may be several', and none is named."""
    problem, table = case(3, OBJECTIVES[1], HOPS)
    found = break_down(problem, table, top=10_000)
    assert sum(expert.traffic for expert in found.experts) == pytest.approx(found.score.traffic_by_layer.sum())
    assert not found.pairs
    problem, table = case(3, OBJECTIVES[2], HOPS)
    assert not break_down(problem, table).experts


def test_costliest_pair_is_the_costliest() -> None:
    """By brute force over all pairs, without replicas."""
    problem, table = case(5, Objective(), HOPS, replicas=False)
    plan, affinity = plan_of(problem, table), problem.profile.affinity
    assert affinity is not None
    costs = {
        (layer, i, j): affinity[layer, i, j]
        * HOPS.hop_cost[plan.gpu_of_expert[layer, i], plan.gpu_of_expert[layer + 1, j]]
        for layer in range(LAYERS - 1)
        for i in range(EXPERTS)
        for j in range(EXPERTS)
    }
    pair, *rest = break_down(problem, table, top=1).pairs
    assert not rest
    assert costs[pair.layer, pair.expert, pair.next_expert] == max(costs.values())
    assert pair.traffic == pytest.approx(max(costs.values()) / affinity.sum())


def test_hot_replicas_add_up_to_the_loads() -> None:
    """What the replicas bring to a GPU is its load."""
    problem, table = case(7, OBJECTIVES[2], FLAT)
    load = np.zeros((LAYERS, problem.num_gpus))
    for replica in break_down(problem, table, top=10_000).replicas:
        load[replica.layer, replica.gpu] += replica.load
    replicas = replicas_on_gpu(table, EXPERTS, problem.num_gpus)
    assert load == pytest.approx(expected_gpu_load(problem, replicas))


def test_flow_is_what_a_replay_counts() -> None:
    """Without replicas, the flows are those of the same tokens, replayed."""
    rng = np.random.default_rng(11)
    trace = random_trace(rng, TOKENS, LAYERS, EXPERTS)
    problem = problem_of(trace, HOPS, 3)
    table = random_table(rng, LAYERS, EXPERTS, 4, 3, "empty")
    matrix = evaluate(plan_of(problem, table), trace, HOPS).traffic_matrix
    assert break_down(problem, table).flow.sum(axis=0) == pytest.approx(matrix / matrix.sum())
