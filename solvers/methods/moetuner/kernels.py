"""One step of the second programme of MoETuner, layer by layer: the best permutation before each of the next layer."""

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
    pairs: Floats,
    link_time: Floats,
    states: Ints,
    value: Floats,
    order: Ints,
    first: int,
    last: int,
    best: Floats,
    came_from: Ints,
) -> None:
    """Fill ``best[q]`` and ``came_from[q]`` for the states ``first <= q < last`` of the next layer.

    Parameters
    ----------
    pairs : (G, G) float64
        Pairs that go from a cluster of this layer to one of the next.
    link_time : (G, G) float64
        Time per pair from GPU to GPU; 0 on the diagonal.
    states : (n, G) int8
        Cluster on each GPU, every permutation.
    value : (n,) float64
        Least cost of the layers up to this one.
    order : (n,) int64
        States by rising value: from the first one on that can't win by its value alone, none can.
    """
    n, G = states.shape
    busiest = np.empty((G, G))  # [c, g]: time of the busiest link that cluster c has if it is on GPU g
    for q in range(first, last):
        floor = 0.0
        for c in range(G):
            lowest = np.inf
            for g in range(G):
                time = 0.0
                for h in range(G):
                    time = max(time, pairs[c, states[q, h]] * link_time[g, h])
                busiest[c, g] = time
                lowest = min(lowest, time)
            floor = max(floor, lowest)
        least, argument = np.inf, -1
        for place in range(n):
            p = order[place]
            if value[p] + floor >= least:
                break
            cost = 0.0
            for g in range(G):
                cost = max(cost, busiest[states[p, g], g])
            if value[p] + cost < least:
                least, argument = value[p] + cost, p
        best[q] = least
        came_from[q] = argument
