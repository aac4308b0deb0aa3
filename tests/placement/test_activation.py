"""Activated experts: what the busiest GPU of each batch has to read."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Objective, Plan, Problem, Topology, evaluate, score
from placement.replay.kernels.choosing import choose_replica
from placement.replay.replay import POLICIES, homes_of
from tests.builders.problems import dispatch
from tests.builders.traces import random_trace
from traces import InputError, Profile, Trace

EXPERTS, SLOTS, BATCH = 6, 2, 8


def case(seed: int, policy: Any = "same_node") -> tuple[Trace, Problem, Any]:
    """Return random tokens, a problem that counts activated experts, and a map with replicas."""
    rng = np.random.default_rng(seed)
    trace = random_trace(rng, 45, 2, EXPERTS)
    objective = Objective(
        execution="dispatch",
        replica_policy=policy,
        activated_weight=2.0,
        decode_batch=BATCH,
        imbalance_weight=1.0,
        load_spread_weight=3.0,
        load_spread_tolerance=0.0088,
    )
    problem = Problem(Profile.of(trace, workers=1), Topology.parse("2x2"), SLOTS, objective)
    return trace, problem, np.array([[0, 1, 2, 3, 4, 5, 0, 2], [5, 0, 1, -1, 2, 3, 4, 5]], np.int32)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), policy=st.sampled_from(["fair", "same_gpu", "same_node"]))
def test_term_equals_counting_with_sets(seed: int, policy: Any) -> None:
    """The term is the mean, over layers and batches, of the largest set of experts on a GPU."""
    _, problem, table = case(seed, policy)
    sample = problem.profile.sample
    assert sample is not None
    homes = homes_of(problem.objective, 4, sample.rows, sample.seq_id, sample.source_rank)
    node, most = problem.topology.node_of_gpu, []
    for layer in range(2):
        for first in range(0, len(sample), BATCH):
            used: list[set[int]] = [set() for _ in range(4)]
            for t in range(first, min(first + BATCH, len(sample))):
                for expert in sample.topk_ids[t, layer]:
                    gpus = np.flatnonzero(table[layer] == expert) // SLOTS
                    anchor, row = homes[t : t + 1].astype(np.int64), sample.rows[t]
                    gpu = choose_replica(gpus, len(gpus), anchor, 1, POLICIES[policy], node, row, layer, expert)
                    used[gpu].add(int(expert))
            most.append(max(map(len, used)))
    terms = {term.name: term for term in score(problem, table).terms}
    assert terms["activated"].value == pytest.approx(np.mean(most))
    assert terms["activated"].weight == 2.0


def test_term_is_left_out_without_weight() -> None:
    """Without a weight nothing is counted."""
    _, problem, table = case(1)
    plain = Problem(
        problem.profile,
        problem.topology,
        SLOTS,
        dispatch(),
    )
    assert [term.name for term in score(plain, table).terms] == ["traffic", "imbalance", "load_excess", "load_spread"]


def test_evaluation_counts_where_a_batch_is_given() -> None:
    """One batch of all tokens activates what any token uses; without a batch there is no figure."""
    trace, problem, table = case(2)
    plan = Plan(
        physical_to_logical_map=table,
        layer_ids=trace.layer_ids,
        num_experts=EXPERTS,
        num_gpus=4,
        slots_per_gpu=SLOTS,
        gpus_per_node=problem.topology.gpus_per_node,
    )
    options: Any = {"execution": "dispatch", "workers": 1}
    assert evaluate(plan, trace, problem.topology, **options).activated_experts is None
    assert evaluate(plan, trace, problem.topology, decode_batch=1000, **options).activated_experts == 2.0
    alone = evaluate(plan, trace, problem.topology, decode_batch=1, **options).activated_experts
    assert alone is not None
    assert alone < 2.0


def test_bad_requests_are_refused() -> None:
    """Activated experts need home ranks and batches."""
    for wrong in ({"execution": "context_coherent"}, {"decode_batch": 0}, {"activated_weight": -1.0}):
        with pytest.raises(InputError):
            Objective(**({"execution": "dispatch", "activated_weight": 1.0} | wrong))  # type: ignore[arg-type]
