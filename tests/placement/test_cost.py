"""The cost function against brute force and against the evaluation of the same tokens."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, LayerCap, Objective, Problem, Topology, evaluate, score
from placement.cost.feasibility import load_cap_misses
from placement.cost.shares import assignments_by_home, expected_gpu_load, expected_share
from placement.loads.policies import replica_share
from placement.plan.plan import replicas_on_gpu
from tests.builders.problems import dispatch, plan_of, random_table
from tests.builders.traces import random_ids, random_trace
from traces import Profile, Trace

LAYERS, EXPERTS, TOKENS = 3, 6, 40
FLAT, HOPS = Topology.parse("1x4"), Topology.parse("2x2")


def traffic(problem: Problem, table: Any) -> float:
    """Traffic term of the score."""
    return next(term.value for term in score(problem, table).terms if term.name == "traffic")


@given(seed=st.integers(0, 2**32), topology=st.sampled_from([FLAT, HOPS]))
def test_context_score_equals_evaluation(seed: int, topology: Topology) -> None:
    """Without replicas the traffic and the loads are those of the same tokens, replayed."""
    rng = np.random.default_rng(seed)
    trace = random_trace(rng, TOKENS, LAYERS, EXPERTS)
    problem = Problem(Profile.of(trace, workers=1), topology, slots_per_gpu=3)
    table = random_table(rng, LAYERS, EXPERTS, 4, 3, "empty")
    found, wanted = score(problem, table), evaluate(plan_of(problem, table), trace, topology, workers=1)
    assert traffic(problem, table) == pytest.approx(wanted.traffic)
    assert found.traffic_by_layer.sum() == pytest.approx(wanted.traffic)
    assert found.max_load.mean() == pytest.approx(wanted.imbalance_max_over_mean)
    if topology is FLAT:
        assert found.total == pytest.approx(wanted.cross_gpu_fraction)


@given(seed=st.integers(0, 2**32), topology=st.sampled_from([FLAT, HOPS]))
def test_pair_traffic_with_replicas(seed: int, topology: Topology) -> None:
    """With replicas, a pair is spread evenly over the pairs of replicas."""
    rng = np.random.default_rng(seed)
    problem = Problem(Profile.of(random_trace(rng, TOKENS, LAYERS, EXPERTS), workers=1), topology, slots_per_gpu=3)
    table = random_table(rng, LAYERS, EXPERTS, 4, 3)
    affinity = problem.profile.affinity
    assert affinity is not None
    cost = 0.0
    for layer in range(LAYERS - 1):
        for i in range(EXPERTS):
            for j in range(EXPERTS):
                here = np.flatnonzero(table[layer] == i) // 3
                there = np.flatnonzero(table[layer + 1] == j) // 3
                cost += affinity[layer, i, j] * topology.hop_cost[np.ix_(here, there)].mean()
    assert traffic(problem, table) == pytest.approx(cost / affinity.sum())


@given(
    seed=st.integers(0, 2**32),
    topology=st.sampled_from([FLAT, HOPS, Topology.parse("1+3")]),
    dedup=st.sampled_from(["gpu", "node"]),
    policy=st.sampled_from(["fair", "same_gpu", "same_node"]),
)
def test_message_score_equals_evaluation(seed: int, topology: Topology, dedup: Any, policy: Any) -> None:
    """With all tokens in the sample, messages cost what the evaluation of the same tokens says, replicas included."""
    rng = np.random.default_rng(seed)
    trace = random_trace(rng, TOKENS, LAYERS, EXPERTS, 3)
    objective = dispatch(dedup=dedup, replica_policy=policy)
    problem = Problem(Profile.of(trace, workers=1), topology, slots_per_gpu=3, objective=objective)
    table = random_table(rng, LAYERS, EXPERTS, 4, 3)
    options: Any = {"execution": "dispatch", "dedup": dedup, "replica_policy": policy, "workers": 1}
    assert traffic(problem, table) == pytest.approx(
        evaluate(plan_of(problem, table), trace, topology, **options).traffic
    )


@given(seed=st.integers(0, 2**32))
def test_assignment_score_averages_over_homes(seed: int) -> None:
    """Without deduplication and replicas, the cost is the mean hop from any home to the expert, by load."""
    rng = np.random.default_rng(seed)
    objective = dispatch(dedup="none")
    problem = Problem(
        Profile.of(random_trace(rng, TOKENS, LAYERS, EXPERTS), workers=1), HOPS, slots_per_gpu=3, objective=objective
    )
    table = random_table(rng, LAYERS, EXPERTS, 4, 3, "empty")
    load = problem.profile.load
    cost = sum(
        load[layer, e] * HOPS.hop_cost[:, np.flatnonzero(table[layer] == e)[0] // 3].mean()
        for layer in range(LAYERS)
        for e in range(EXPERTS)
    )
    assert traffic(problem, table) == pytest.approx(cost / load.sum())


def test_assignment_score_with_measured_homes_equals_evaluation() -> None:
    """With measured homes and no replicas the expectation is exact."""
    rng = np.random.default_rng(0)
    ids = random_ids(rng, TOKENS, LAYERS, EXPERTS)
    trace = Trace.of(ids, num_experts=EXPERTS, source_rank=rng.integers(0, 4, TOKENS))
    objective = dispatch(dedup="none", ownership="measured")
    problem = Problem(Profile.of(trace, workers=1), HOPS, slots_per_gpu=3, objective=objective)
    table = random_table(rng, LAYERS, EXPERTS, 4, 3, "empty")
    wanted = evaluate(
        plan_of(problem, table), trace, HOPS, execution="dispatch", dedup="none", ownership="measured", workers=1
    )
    assert traffic(problem, table) == pytest.approx(wanted.traffic)


@given(
    seed=st.integers(0, 2**32),
    sizes=st.sampled_from([(4,), (2, 2), (1, 2, 3)]),
    policy=st.sampled_from(["fair", "same_gpu", "same_node"]),
    measured=st.booleans(),
)
def test_replica_share_by_loops(seed: int, sizes: tuple[int, ...], policy: str, measured: bool) -> None:
    """Shares follow the policy home by home, and add up to one."""
    rng = np.random.default_rng(seed)
    node, gpus = Topology.of(sizes).node_of_gpu, sum(sizes)
    replicas = rng.integers(0, 2, (2, 4, gpus))
    replicas[:, :, 0] |= replicas.sum(axis=2) == 0
    homes = rng.dirichlet(np.ones(gpus), (2, 4)) if measured else None
    wanted = np.zeros(replicas.shape)
    for layer, e, home in np.ndindex(*replicas.shape):
        have = replicas[layer, e]
        near = np.flatnonzero((have > 0) & (node == node[home]))
        target = np.flatnonzero(have)
        if policy != "fair" and have[home]:
            target = np.array([home])
        elif policy == "same_node" and len(near):
            target = near
        wanted[layer, e, target] += (1 / gpus if homes is None else homes[layer, e, home]) / len(target)
    share = replica_share(replicas, policy, node, homes)
    assert np.allclose(share, wanted)
    assert np.allclose(share.sum(axis=2), 1)


@given(seed=st.integers(0, 2**32))
def test_relabelling_gpus_of_a_node_changes_nothing(seed: int) -> None:
    """GPUs of one node are interchangeable, if the same change is made in every layer."""
    rng = np.random.default_rng(seed)
    constraints = Constraints(load_cap=1.0)
    profile = Profile.of(random_trace(rng, TOKENS, LAYERS, EXPERTS), workers=1)
    problem = Problem(profile, HOPS, slots_per_gpu=3, objective=Objective(imbalance_weight=1), constraints=constraints)
    table = random_table(rng, LAYERS, EXPERTS, 4, 3)
    order = np.concatenate([rng.permutation(2), 2 + rng.permutation(2)])
    swapped = table.reshape(LAYERS, 4, 3)[:, order].reshape(LAYERS, 12)
    assert score(problem, swapped).total == pytest.approx(score(problem, table).total)


@given(seed=st.integers(0, 2**32))
def test_excess_is_that_of_each_layers_own_cap(seed: int) -> None:
    """A layer's cap replaces the one for all; without one for all, the other layers have none."""
    rng = np.random.default_rng(seed)
    profile, table = (
        Profile.of(random_trace(rng, TOKENS, LAYERS, EXPERTS), workers=1),
        random_table(rng, LAYERS, EXPERTS, 4, 3),
    )
    for cap, wanted in ((1.1, (1.1, 1.5, 1.1)), (None, (np.inf, 1.5, np.inf))):
        constraints = Constraints(load_cap=cap, layer_load_caps=(LayerCap(layer_id=1, load_cap=1.5),))
        problem = Problem(profile, FLAT, 3, constraints=constraints)
        relative = expected_gpu_load(problem, plan_of(problem, table).replicas_on_gpu)
        over = np.maximum(relative - np.array(wanted)[:, None], 0)
        excess = next(term.value for term in score(problem, table).terms if term.name == "load_excess")
        assert excess == pytest.approx(over.sum() / LAYERS)
        missed = [text.split(" in layer ")[1][0] for text in load_cap_misses(problem, table)]
        assert missed == [str(layer) for layer in np.flatnonzero(over.max(axis=1) > 1e-6)]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_total_is_the_weighted_sum(seed: int) -> None:
    """The total adds up the terms; excess and imbalance are those of the expected loads and the speeds."""
    rng = np.random.default_rng(seed)
    topology = replace(HOPS, speed=np.array([1.0, 2, 1, 1]))
    objective = Objective(imbalance_weight=2, load_excess_weight=5, load_spread_weight=0)
    profile = Profile.of(random_trace(rng, TOKENS, LAYERS, EXPERTS), workers=1)
    constraints = Constraints(load_cap=1.1)
    problem = Problem(profile, topology, slots_per_gpu=3, objective=objective, constraints=constraints)
    table = random_table(rng, LAYERS, EXPERTS, 4, 3)
    relative = expected_gpu_load(problem, plan_of(problem, table).replicas_on_gpu)
    values = {term.name: term.value for term in score(problem, table).terms}
    assert np.allclose((relative * topology.fair_share).sum(axis=1), 1)
    assert values["imbalance"] == pytest.approx(relative.max(axis=1).mean() - 1)
    assert values["load_excess"] == pytest.approx(np.maximum(relative - 1.1, 0).sum() / LAYERS)
    assert score(problem, table).total == pytest.approx(
        values["traffic"] + 2 * values["imbalance"] + 5 * values["load_excess"]
    )


@pytest.mark.parametrize("policy", ["fair", "same_gpu", "same_node"])
@pytest.mark.parametrize("ownership", ["token", "measured"])
def test_messages_per_expert_are_those_of_the_shares_by_home(policy: Any, ownership: Any) -> None:
    """The compiled sum over homes and replicas is that of the arrays, with two replicas on a GPU and uneven nodes."""
    rng = np.random.default_rng(3)
    trace = Trace.of(
        random_ids(rng, TOKENS, LAYERS, EXPERTS), num_experts=EXPERTS, source_rank=rng.integers(0, 4, TOKENS)
    )
    objective = dispatch(dedup="none", ownership=ownership, replica_policy=policy)
    uneven = Topology.of((3, 1), rank_cost_matrix=rng.uniform(0.1, 1, (4, 4)) * (1 - np.eye(4)))
    problem = Problem(Profile.of(trace, workers=1), uneven, 3, objective, Constraints(distinct_replicas=False))
    table = random_table(rng, LAYERS, EXPERTS, 4, 3)
    table[0, :3] = table[0, 0]
    table[0, 3:9] = np.arange(EXPERTS)
    by_home = assignments_by_home(problem, replicas_on_gpu(table, EXPERTS, 4))
    wanted = sum((share * hop).sum() for share, hop in zip(by_home, uneven.hop_cost, strict=True))
    assert traffic(problem, table) == pytest.approx(wanted)


def test_first_maps_are_scored_once() -> None:
    """A search and a comparison ask for the same baselines; what they share nobody can write to."""
    problem = Problem(Profile.of(random_trace(np.random.default_rng(0), TOKENS, LAYERS, EXPERTS), workers=1), FLAT, 3)
    tables = [random_table(np.random.default_rng(seed), LAYERS, EXPERTS, 4, 3) for seed in range(6)]
    found = [score(problem, table) for table in tables]
    assert score(problem, tables[0].copy()) is found[0]
    assert not found[0].max_load.flags.writeable
    assert score(problem, tables[5]) is not found[5]
    assert score(problem, tables[5]).total == found[5].total


def test_shares_in_pieces_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large maps are taken a few layers at a time, on threads."""
    profile = Profile.of(random_trace(np.random.default_rng(1), TOKENS, LAYERS, EXPERTS), workers=1)
    problem = Problem(profile, HOPS, 3, dispatch(dedup="node"))
    replicas = replicas_on_gpu(random_table(np.random.default_rng(1), LAYERS, EXPERTS, 4, 3), EXPERTS, 4)
    whole = expected_share(problem, replicas)
    monkeypatch.setattr("placement.cost.shares.TOGETHER", 1)
    assert np.array_equal(expected_share(problem, replicas), whole)
