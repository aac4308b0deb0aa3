"""What an expert of a layer costs on each GPU, given where a neighbouring layer is."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["add_layer_cost"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


@numba.njit(nogil=True, cache=True)
def add_layer_cost(pairs: Floats, gpu: Ints, ahead: bool, hop: Floats, cost: Floats) -> None:
    """Add the cost of each expert of a layer on each GPU, given the GPUs (E,) of a neighbour, to `cost`, (E, G).

    Parameters
    ----------
    pairs : (E, E) float64
        Weight of pairs: of this layer and the next one if `ahead`, else of the one before and this one.
    """
    E, G = cost.shape
    by_gpu = np.zeros((E, G))
    for i in range(E):
        for j in range(E):
            if ahead:
                by_gpu[i, gpu[j]] += pairs[i, j]
            else:
                by_gpu[j, gpu[i]] += pairs[i, j]
    for e in range(E):
        for h in range(G):
            weight = by_gpu[e, h]
            for g in range(G):
                cost[e, g] += weight * (hop[g, h] if ahead else hop[h, g])
