"""Passes that counts lead one to expect."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from placement import Objective, Plan, Topology
from placement.time.expected import expected_pass
from placement.time.passes import PassReplay
from traces import Trace


@pytest.mark.parametrize("dedup", ["none", "node", "gpu"])
def test_expected_passes_are_those_of_independent_tokens(dedup: Literal["none", "node", "gpu"]) -> None:
    """Replayed tokens whose experts are independent do what is expected of their counts, part by part."""
    rng = np.random.default_rng(0)
    experts, tokens, top_k = 16, 20_000, 2
    weight = rng.dirichlet(np.full(experts, 5.0), 2)
    ids = np.stack([_drawn(rng, row, tokens, top_k) for row in weight], axis=1)
    trace = Trace.of(ids, num_experts=experts)
    counts = np.stack([np.bincount(ids[:, layer].ravel(), minlength=experts) for layer in range(2)])
    topology = Topology.parse("2x2")
    table = np.stack([np.r_[rng.permutation(experts), [0, 1, 2, 3]] for _ in range(2)])
    plan = Plan.of(table, layer_ids=[0, 1], num_experts=experts, gpus_per_node=(2, 2))
    travel = Objective(execution="dispatch", ownership="token", dedup=dedup, replica_policy="fair").settled(
        capped=False
    )
    (seen, _), *_ = PassReplay(plan, topology, travel).loads(trace, tokens)
    shares = counts / counts.sum(axis=1, keepdims=True)
    expected = expected_pass(plan, shares, tokens=tokens, top_k=top_k, dedup=dedup)
    for name in ("counts", "rows", "inside", "across"):
        real, guess = getattr(seen, name).astype(float), getattr(expected, name)
        assert guess == pytest.approx(real, rel=0.06, abs=0.03 * real.mean()), name


def _drawn(rng: np.random.Generator, weight: np.ndarray, tokens: int, top_k: int) -> np.ndarray:
    noise = -np.log(rng.random((tokens, len(weight))))
    return np.argsort(noise / weight, axis=1)[:, :top_k]
