"""Where the replicas beyond one of each expert go, if each brings what it brings at most."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["share_out"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


@numba.njit(nogil=True, cache=True)
def share_out(gains: Floats, spare: int, taken: Ints) -> float:
    """Return an upper bound of the most that `spare` further replicas bring together.

    Each row is raised to its least concave majorant, whose steps can be taken in the order of what they bring.

    Parameters
    ----------
    gains : (E, n) float64
        What the first 0, 1, ..., n - 1 further replicas of an expert bring together; those after bring nothing.
    spare : int
    taken : (E,) int64
        Set to how many each expert has.
    """
    E, n = gains.shape
    steps = np.zeros((E, max(n - 1, 0)))
    for e in range(E):
        first = 0
        while first < n - 1:
            steepest, last = -np.inf, first + 1
            for k in range(first + 1, n):
                slope = (gains[e, k] - gains[e, first]) / (k - first)
                if slope >= steepest:
                    steepest, last = slope, k
            steps[e, first:last] = steepest
            first = last
    order = np.argsort(-steps.ravel(), kind="mergesort")
    total = 0.0
    taken[:] = 0
    for place in range(min(spare, len(order))):
        e, k = divmod(order[place], n - 1)
        if steps[e, k] <= 0.0:
            break
        total += steps[e, k]
        taken[e] += 1
    return total
