"""What no grouping and no plan can beat together: a lower bound of the hops of both.

A hop between two GPUs costs at least the sum of the levels that part them (`placement.cost.bounds.levels_of`). At one
level, let X (R, B) say which of B blocks each request is on, Y (E, B) where the experts of a layer are, with empty
requests and experts so that all blocks are full, b requests and c experts each. What stays is ``tr(X^T N Y)`` for the
uses N (R, E). With the means of rows and columns taken off N (they give ``sum(N) / B`` whatever X and Y are), X and Y
have B - 1 singular values, all ``sqrt(b)`` and ``sqrt(c)``, so that by von Neumann's inequality no more stays than
``sum(N) / B + sqrt(b c) (s_1 + ... + s_{B-1})``, s the singular values of N (Donath and Hoffman's bound of a partition,
for a matrix of two sides). As requests stay where they are from layer to layer, the same holds for all layers side by
side. Nor does more stay of a request than what it uses of its c favourite experts, or of an expert than what the b
requests use that use it most. The smallest of these counts.

Loads depend on the plan alone, and no plan has a smaller largest load than `placement.loads.least` says. Hops and loads
together cost at least the sum of what each costs at least.

References
----------
Donath and Hoffman, IBM J. Res. Dev. 17 (1973), section 3; von Neumann's trace inequality: Mirsky, Monatsh. Math. 79
(1975).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.bounds import levels_of
from placement.loads.least import max_load_bound
from solvers.grouping.search import cost_of

__all__ = ["least_cost", "least_hops"]

Floats = npt.NDArray[np.float64]


def least_cost(problem: Problem, uses: Floats, per_gpu: int) -> float:
    """Return a lower bound of the cost, hops and imbalance together, over every grouping and every plan.

    Parameters
    ----------
    problem, uses, per_gpu :
        See `least_hops`.
    """
    load = uses.sum(axis=0)
    used = load.sum(axis=1) > 0
    least = np.ones(len(load))
    if problem.objective.imbalance_weight and used.any():
        shares = load[used] / load[used].sum(axis=1, keepdims=True)
        capacity = np.asarray(problem.capacity, np.int64)
        least[used] = max_load_bound(shares, capacity, np.asarray(problem.topology.fair_share, np.float64))
    return float(cost_of(problem, least_hops(problem, uses, per_gpu), float(uses.sum()), float(least.mean())))


def least_hops(problem: Problem, uses: Floats, per_gpu: int) -> float:
    """Return a lower bound of the hop cost of all uses, over every grouping and every plan with one copy per expert.

    Parameters
    ----------
    problem : Problem
        Its topology and slots count.
    uses : (R, L, E) float64
    per_gpu : int
        Requests that a GPU may have.
    """
    total, bound = float(uses.sum()), 0.0
    for level in levels_of(problem):
        gpus = np.bincount(level.block_of_gpu)
        room = np.bincount(level.block_of_gpu, weights=problem.capacity).astype(np.int64)
        most, slots = int(gpus.max()) * per_gpu, int(room.max())
        stays = sum(_favourites(layer, most, slots) for layer in uses.transpose(1, 0, 2))
        if (gpus == gpus[0]).all() and (room == room[0]).all():
            stays = min(stays, _spectral(uses, level.blocks, most, slots))
        bound += level.cost * max(0.0, total - stays)
    return bound * (1 - 1e-9)


def _favourites(layer: Floats, most: int, slots: int) -> float:
    """Return what stays of a layer, (R, E), at most, request by request and expert by expert."""
    by_request = np.sort(layer, axis=1)[:, ::-1][:, :slots].sum()
    by_expert = np.sort(layer, axis=0)[::-1][:most].sum()
    return float(min(by_request, by_expert))


def _spectral(uses: Floats, blocks: int, most: int, slots: int) -> float:
    """Return what stays on blocks of equal size at most, by singular values: layer by layer, or of all side by side."""
    requests, layers, experts = uses.shape
    full = np.zeros((blocks * most, layers, blocks * slots))
    full[:requests, :, :experts] = uses
    full -= full.mean(axis=2, keepdims=True)
    full -= full.mean(axis=0, keepdims=True)
    apart = sum(_largest(full[:, layer], blocks - 1) for layer in range(layers))
    together = float(np.sqrt(layers)) * _largest(full.reshape(len(full), -1), blocks - 1)
    return float(uses.sum()) / blocks + float(np.sqrt(most * slots)) * min(apart, together)


def _largest(matrix: Floats, count: int) -> float:
    """Return the sum of the largest singular values, from the eigenvalues of the smaller square."""
    square = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
    values = np.linalg.eigvalsh(square)[::-1][:count]
    return float(np.sqrt(np.maximum(values, 0.0)).sum())
