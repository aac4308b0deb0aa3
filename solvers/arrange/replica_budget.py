"""Sharing a budget of replicas out to layers, and putting a layer's share on its GPUs.

Replica budgets per layer by a knapsack are the idea of CRAFT; what replicas are worth in a layer is measured by the
callers, on the objective itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.plan.plan import replicas_on_gpu

__all__ = ["add_replicas", "replica_levels", "share_out"]

# Of an even part of the budget; chosen by trial: skewed layers want several times what even ones do.
SHARES = (0.5, 1.0, 2.0, 4.0)

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


def replica_levels(room: int, budget: int, num_layers: int) -> npt.NDArray[np.int64]:
    """Return the numbers of extra replicas in a layer to try, rising, closest around an even part of the budget.

    Parameters
    ----------
    room : int
        Extra replicas that a layer has slots for.
    budget : int
        Extra replicas of all layers together.
    num_layers : int

    Returns
    -------
    (n,) int64
        From 0 to `room`, or to the budget if that is less.
    """
    most = max(0, min(room, budget))
    parts = np.ceil(np.multiply(SHARES, budget / num_layers)).astype(np.int64)
    return np.unique(np.clip([0, *parts, most], 0, most))


def share_out(cost: Floats, levels: Ints, budget: int) -> npt.NDArray[np.int64]:
    """Return how many extra replicas each layer gets, (L,); they add up to the budget, or to all there is room for.

    The levels cost the least that is possible within the budget, by dynamic programming over the layers; what is left
    is less than a step to the next level, and goes where that step saves most per replica.

    Parameters
    ----------
    cost : (L, n) float64
        What the layer adds to the objective with so many extra replicas.
    levels : (n,) integers
        Rising, from 0.
    budget : int
    """
    curves = np.minimum.accumulate(cost, axis=1)
    left = min(budget, len(cost) * int(levels[-1]))
    best = np.zeros(left + 1)
    choices = []
    for curve in curves:
        options = np.full((len(levels), left + 1), np.inf)
        for level, replicas in enumerate(levels[levels <= left]):
            options[level, replicas:] = best[: left + 1 - replicas] + curve[level]
        choices.append(options.argmin(axis=0))  # the fewest replicas of equally good ones
        best = options.min(axis=0)
    at = np.zeros(len(cost), np.int64)
    for layer in range(len(cost) - 1, -1, -1):
        at[layer] = choices[layer][left]
        left -= int(levels[at[layer]])
    given = levels[at].astype(np.int64)
    after = np.minimum(at + 1, len(levels) - 1)
    row = np.arange(len(cost))
    saving = (curves[row, at] - curves[row, after]) / np.maximum(levels[after] - given, 1)
    for layer in np.argsort(-saving, kind="stable"):
        taken = min(int(levels[-1] - given[layer]), left)
        given[layer] += taken
        left -= taken
    return given


def add_replicas(problem: Problem, layer: int, row: Ints, extra: int) -> npt.NDArray[np.int32]:
    """Return a layer's row with `extra` more replicas, or as many as there are places for.

    Each goes to the expert with the largest load per replica, onto the least loaded GPU that may have it. Replicas
    often pay together only: a single one evens out the loads of few GPUs, and not that of the busiest.

    Parameters
    ----------
    problem : Problem
    layer : int
    row : (S,) integers
    extra : int
    """
    result = np.array(row, dtype=np.int32)
    fair = problem.topology.fair_share
    held = replicas_on_gpu(result[None], problem.num_experts, problem.num_gpus)[0] > 0
    room = problem.capacity - (result.reshape(problem.num_gpus, -1) >= 0).sum(axis=1)
    free = problem.allowed[layer] & ~held & ~problem.pinned[layer].any(axis=1)[:, None]
    for group in problem.constraints.groups:
        if layer in np.atleast_1d(np.arange(problem.num_layers)[problem.rows_of(group)]):
            free[list(group.experts)] = False
    load, counts = problem.relative_load[layer], held.sum(axis=1)
    share = load / counts
    on_gpu = (held * share[:, None]).sum(axis=0)
    while extra > 0 and share.max() > -np.inf:
        expert = int(share.argmax())
        places = free[expert] & (room > 0)
        if not places.any():
            share[expert] = -np.inf
            continue
        gpu = int(np.where(places, on_gpu / fair, np.inf).argmin())
        on_gpu -= held[expert] * share[expert]
        held[expert, gpu], free[expert, gpu] = True, False
        counts[expert] += 1
        share[expert] = load[expert] / counts[expert]
        on_gpu += held[expert] * share[expert]
        slots = result[gpu * problem.slots_per_gpu : (gpu + 1) * problem.slots_per_gpu]
        slots[np.flatnonzero(slots < 0)[0]] = expert
        room[gpu] -= 1
        extra -= 1
    return result
