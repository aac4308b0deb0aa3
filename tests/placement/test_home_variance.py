"""The variance of loads by the homes of sequences: against replays with homes drawn at random."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, Problem
from placement.cost.shares import home_variance, load_variance
from placement.plan.plan import replicas_on_gpu
from tests.builders.problems import dispatch, problem_of, random_table
from traces import Trace

EXPERTS, SEQUENCES, LENGTH = 5, 4, 6


def problem(seed: int, text: str, policy: Any, ownership: Any = "sequence", quantile: float | None = 0.9) -> Problem:
    """Return a layer of five experts in three slots on each GPU, and four sequences that like some more than others."""
    rng = np.random.default_rng(seed)
    seq_id = np.repeat(np.arange(SEQUENCES), LENGTH)
    liking = rng.random((SEQUENCES, EXPERTS))[seq_id]
    ids = (liking + rng.random((len(seq_id), EXPERTS))).argsort(axis=1)[:, None, :2].astype(np.int16)
    ids[rng.random(len(ids)) < 0.2, 0, 1] = -1
    trace = Trace.of(ids, num_experts=EXPERTS, seq_id=seq_id, source_rank=seq_id % 3)
    objective = dispatch(dedup="node", replica_policy=policy, ownership=ownership)
    constraints = Constraints(load_cap=1.1, load_quantile=quantile, load_groups="sequences")
    return problem_of(trace, text, 3, objective, constraints)


def random_replicas(seed: int, gpus: int) -> Any:
    """Every expert on one GPU or more, (1, E, G)."""
    rng = np.random.default_rng(seed)
    return replicas_on_gpu(random_table(rng, 1, EXPERTS, gpus, 3), EXPERTS, gpus)


def loads_by_home(task: Problem, replicas: Any) -> Any:
    """Return what each sequence adds to each GPU's relative load for each home, by its tokens, (s, home, GPU)."""
    sample, G = task.profile.sample, task.num_gpus
    assert sample is not None
    node, policy = task.topology.node_of_gpu, task.objective.replica_policy
    added = np.zeros((SEQUENCES, G, G))
    for token, sequence in zip(sample.topk_ids[:, 0], sample.seq_id, strict=True):
        for e in token[token >= 0]:
            here = np.flatnonzero(replicas[0, e])
            for home in range(G):
                near = here[node[here] == node[home]] if policy == "same_node" else here[:0]
                chosen = [home] if home in here else near if len(near) else here
                added[sequence, home, chosen] += 1 / len(chosen)
    return added / (sample.topk_ids >= 0).sum() / task.topology.fair_share


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    text=st.sampled_from(["1x3", "2x2", "1+2"]),
    policy=st.sampled_from(["same_gpu", "same_node"]),
)
def test_variance_is_that_of_all_homes(seed: int, text: str, policy: Any) -> None:
    """Sequences draw their homes independently: the variances over all homes of each add up."""
    task = problem(seed, text, policy)
    replicas = random_replicas(seed, task.num_gpus)
    expected = loads_by_home(task, replicas).var(axis=1).sum(axis=0)
    assert home_variance(task, replicas)[0] == pytest.approx(expected, abs=1e-12)


def test_variance_adds_to_that_of_the_loads() -> None:
    """What a cap on a quantile is held against has both parts; under token homes only the first."""
    swayed, calm = problem(1, "2x2", "same_node"), problem(1, "2x2", "same_node", "token")
    replicas = random_replicas(1, 4)
    assert home_variance(swayed, replicas).max() > 0
    assert load_variance(swayed, replicas) == pytest.approx(
        load_variance(calm, replicas) + home_variance(swayed, replicas)
    )


@pytest.mark.parametrize(
    ("policy", "ownership", "quantile"),
    [("fair", "sequence", 0.9), ("same_node", "token", 0.9), ("same_node", "measured", 0.9)],
)
def test_homes_that_do_not_sway(policy: Any, ownership: Any, quantile: float) -> None:
    """An equal split ignores homes, those of single tokens average out, and measured ones are known."""
    assert problem(0, "1x3", policy, ownership, quantile).home_moments is None
