"""Changes that balance a layer one by one: each is a plan, each gains, and what is predicted is what happens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.plan.plan import replicas_on_gpu
from solvers.arrange.kernels import balance_layer
from tests.builders.problems import random_table


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_every_change_gains_and_leaves_a_plan(seed: int) -> None:
    """One or two moves each; all experts stay; the steep sum of loads falls; no GPU has an expert twice."""
    rng = np.random.default_rng(seed)
    experts, gpus, slots = 8, 4, 3
    table = random_table(rng, 1, experts, gpus, slots, "either").astype(np.int32)
    load = rng.dirichlet(np.full(experts, 0.5))
    share = np.array([0.3, 0.3, 0.2, 0.2])
    capacity = np.full(gpus, slots)
    way = balance_layer(table.reshape(gpus, slots).copy(), load, share, capacity, 50)
    before = replicas_on_gpu(table, experts, gpus)[0]
    steep = _steep(before, load, share)
    for rows in way:
        after = replicas_on_gpu(rows.reshape(1, -1), experts, gpus)[0]
        assert (after.sum(axis=1) >= 1).all()
        assert after.max() == 1
        assert 1 <= ((after > 0) & (before == 0)).sum() <= 2
        now = _steep(after, load, share)
        assert now < steep
        before, steep = after, now


def _steep(replicas: np.ndarray, load: np.ndarray, share: np.ndarray) -> float:
    part = (load / replicas.sum(axis=1)) @ replicas
    return float(((part / share) ** 8).sum())


def test_no_single_change_gains_more() -> None:
    """The first change is the best of all swaps and replicas that touch the busiest GPU, per move."""
    rng = np.random.default_rng(4)
    table = random_table(rng, 1, 6, 3, 3, "replicas").astype(np.int32).reshape(3, 3)
    load, share = rng.dirichlet(np.ones(6)), np.full(3, 1 / 3)

    def value(rows: np.ndarray) -> float:
        return _steep(replicas_on_gpu(rows.reshape(1, -1), 6, 3)[0], load, share)

    start = value(table)
    counts = replicas_on_gpu(table.reshape(1, -1), 6, 3)[0]
    top = int(((load / counts.sum(axis=1)) @ counts).argmax())
    best = 0.0
    for own, gpu, slot in np.ndindex(3, 3, 3):
        x, y = table[top, own], table[gpu, slot]
        if gpu == top or x in table[gpu]:
            continue
        replica = table.copy()
        replica[gpu, slot] = x
        if counts[y].sum() > 1:
            best = max(best, start - value(replica))
        if y not in table[top]:
            replica[top, own] = y
            best = max(best, (start - value(replica)) / 2)
    first = balance_layer(table.copy(), load, share, np.full(3, 3), 1)
    moves = (first[0] != table).sum()
    assert (start - value(first[0])) / moves == pytest.approx(best)
