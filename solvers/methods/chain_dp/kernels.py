"""One step of the chain's dynamic programme: the best arrangement of a layer before each arrangement of the next."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["extend"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


@numba.njit(nogil=True, cache=True)
def extend(
    traffic: Floats,
    hop: Floats,
    states: Ints,
    state_cost: Floats,
    following: Ints,
    first: int,
    last: int,
    best: Floats,
    came_from: Ints,
) -> None:
    """Fill ``best[q]`` and ``came_from[q]`` for the arrangements ``following[first:last]``.

    Parameters
    ----------
    traffic : (E, E) float64
        Cost per unit of hop cost of the pairs of the two layers.
    hop : (G, G) float64
    states : (n, E) int8
        GPU of each expert in each arrangement of the layer before.
    state_cost : (n,) float64
        Least cost of the layers up to there; infinite where the constraints forbid the arrangement.
    following : (m, E) int8
        Arrangements of the next layer.
    """
    E, G = len(traffic), len(hop)
    price = np.empty((E, G))
    for q in range(first, last):
        for i in range(E):
            for g in range(G):
                cost = 0.0
                for j in range(E):
                    cost += traffic[i, j] * hop[g, following[q, j]]
                price[i, g] = cost
        least, argument = np.inf, -1
        for p in range(len(states)):
            cost = state_cost[p]
            for i in range(E):
                cost += price[i, states[p, i]]
            if cost < least:
                least, argument = cost, p
        best[q] = least
        came_from[q] = argument
