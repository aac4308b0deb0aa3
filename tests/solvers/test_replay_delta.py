"""The change that the fan-out kernel returns is the change of the one cost function."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, Objective, Plan, Problem, Topology, evaluate, score
from placement.cost.shares import expected_gpu_load
from placement.plan.plan import replicas_on_gpu
from solvers.methods.annealing.replay.improve import _drop_second_replicas
from solvers.methods.annealing.replay.kernels.rules import item_alike
from solvers.methods.annealing.replay.kernels.state import Draws
from solvers.methods.annealing.replay.kernels.trials import anneal_layer
from solvers.methods.annealing.replay.layer import Layer
from solvers.methods.annealing.replay.levels import Ground
from solvers.searching.kernels.random import seeded
from tests.builders.problems import random_table
from tests.builders.traces import random_ids
from traces import Profile, Trace

LAYERS, EXPERTS, SLOTS, TOKENS = 2, 6, 3, 60
WEIGHT, EXCESS, SPREAD, CAP = 0.5, 2.0, 1.5, 1.05


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    text=st.sampled_from(["1x4", "2x2", "1+3"]),
    dedup=st.sampled_from(["gpu", "node", "none"]),
    policy=st.sampled_from(["fair", "same_gpu", "same_node"]),
    ownership=st.sampled_from(["token", "sequence", "measured"]),
    ragged=st.sampled_from([0.0, 0.3]),
    quantile=st.sampled_from([None, 0.9]),
    activated=st.sampled_from([0.0, 0.3]),
)
def test_change_equals_change_of_score(
    seed: int,
    text: str,
    dedup: Any,
    policy: Any,
    ownership: Any,
    ragged: float,
    quantile: float | None,
    activated: float,
) -> None:
    """After accepted trials, change, map and loads agree with a fresh score.

    Without deduplication the score is an expectation over the homes, so the tokens' own traffic takes its place.
    """
    rng = np.random.default_rng(seed)
    ids = random_ids(rng, TOKENS, LAYERS, EXPERTS)
    ids[rng.random(TOKENS) < ragged, 0] = -1
    trace = Trace.of(ids, num_experts=EXPERTS, source_rank=rng.integers(0, 4, TOKENS), seq_id=np.arange(TOKENS) // 7)
    topology = Topology.parse(text)
    objective = Objective(
        execution="dispatch",
        dedup=dedup,
        ownership=ownership,
        replica_policy=policy,
        imbalance_weight=WEIGHT,
        load_excess_weight=EXCESS,
        load_spread_weight=SPREAD,
        load_spread_tolerance=0,
        activated_weight=activated,
        decode_batch=16 if activated else None,
    )
    problem = Problem(
        Profile.of(trace, workers=1, window_tokens=8),
        topology,
        slots_per_gpu=SLOTS,
        objective=objective,
        constraints=Constraints(load_cap=CAP, load_quantile=quantile),
    )
    sample = problem.profile.sample
    assert sample is not None
    assert problem.load_deviations is not None

    def value(table: Any) -> float:
        terms = {term.name: term.value for term in score(problem, table).terms}
        if dedup == "none":
            plan = Plan(
                physical_to_logical_map=table,
                layer_ids=trace.layer_ids,
                num_experts=EXPERTS,
                num_gpus=4,
                slots_per_gpu=SLOTS,
                gpus_per_node=topology.gpus_per_node,
            )
            options: Any = {"execution": "dispatch", "dedup": "none", "ownership": objective.ownership}
            terms["traffic"] = evaluate(plan, trace, topology, replica_policy=policy, workers=1, **options).traffic
        return (
            terms["traffic"]
            + WEIGHT * terms["imbalance"]
            + EXCESS * terms["load_excess"]
            + problem.spread_weight * terms["load_spread"]
            + activated * terms.get("activated", 0.0)
        )

    table = random_table(rng, LAYERS, EXPERTS, 4, SLOTS).astype(np.int32)
    before = value(table)
    layer = int(rng.integers(LAYERS))
    search = Layer(Ground(problem), table[layer], layer)
    change = anneal_layer(
        search.state, search.model, 200, float(rng.choice([0.0, 0.05, 1.0])), np.inf, Draws(8, 10, 4), seeded(seed, 1)
    )
    after = table.copy()
    after[layer] = search.row
    assert not np.array_equal(after, table)
    assert change == pytest.approx(value(after) - before, abs=1e-9)
    load = expected_gpu_load(problem, replicas_on_gpu(after, EXPERTS, 4))[layer]
    assert np.allclose(search.state.gpu_load, load)
    fresh = Layer(Ground(problem), search.row, layer)
    assert_fresh(search, fresh)
    # Under a soft cap as well, once it is hard again.
    fresh.soften(0.01)
    fresh.anneal(200, 0.05, np.inf, seeded(seed, 2))
    fresh.soften(1.0)
    assert_fresh(fresh, hard := Layer(Ground(problem), fresh.row, layer))
    assert fresh.cost == pytest.approx(hard.cost, abs=1e-9)


def assert_fresh(search: Layer, again: Layer) -> None:
    """Check that the counters and tables of a search are those that its map gives from scratch."""
    for name in ("variance", "overlap", "home_overlap", "active_on", "value", "sums"):
        assert np.allclose(getattr(search.state, name), getattr(again.state, name), atol=1e-9), name
    for name in ("gpus", "nodes"):
        ours, theirs = getattr(search.state, name), getattr(again.state, name)
        for field in ("planes", "zero", "one"):
            assert np.array_equal(getattr(ours, field), getattr(theirs, field)), (name, field)
    here = search.state.expert_of >= 0
    expert, gpu = search.state.expert_of[here], search.state.gpu_of[here]
    items, others = search.state.item_at[expert, gpu], again.state.item_at[expert, gpu]
    for name in ("bits", "active", "part"):
        assert np.allclose(getattr(search.state, name)[items], getattr(again.state, name)[others], atol=1e-12), name
    assert all(item in search.state.item_on[gpu] for item, gpu in enumerate(search.state.gpu_of))


def test_second_replicas_on_a_gpu_are_dropped() -> None:
    """A start with two replicas on one GPU keeps one of them; the other slot becomes empty."""
    table = np.array([[0, 0, 1, 2, 1, 1], [-1, -1, 0, 0, 1, 2]], np.int32)
    wanted = [[0, -1, 1, 2, 1, -1], [-1, -1, 0, 0, 1, 2]]
    assert _drop_second_replicas(table, 2).tolist() == wanted


def test_items_of_like_load() -> None:
    """Drawn from the neighbours in the order of loads, each of their replicas; past an end, the item itself."""
    experts, reach = 100, 6
    order = np.random.default_rng(0).permutation(experts)
    rank = np.argsort(order)
    replicas, counts = np.tile([0, 1], (experts, 1)), np.full(experts, 2)
    item_at = np.arange(2 * experts).reshape(experts, 2)
    rng, x = seeded(0), int(order[1])
    drawn = {item_alike(2 * x, x, reach, order, rank, replicas, counts, item_at, rng) for _ in range(1000)}
    assert {int(rank[item // 2]) for item in drawn} == set(range(reach + 2))
    assert drawn == {2 * int(order[r]) + c for r in range(reach + 2) for c in (0, 1)}
