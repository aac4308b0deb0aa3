"""Sums of the largest entries of rows, for the instant bound."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["sum_largest"]


@numba.njit(nogil=True, cache=True)
def sum_largest(counts: npt.NDArray[np.integer[Any]], room: int) -> int:
    """Return the sum of the `room` largest entries of every row, (R, E) integers of at least 0.

    A heap keeps the largest entries so far, the least of them on top. Most entries of a matrix of many experts are 0
    or below it, and cost one comparison.
    """
    total = 0
    heap = np.zeros(room, np.int64)
    for r in range(counts.shape[0]):
        heap[:] = 0
        for c in range(counts.shape[1]):
            value = counts[r, c]
            if value <= heap[0]:
                continue
            place = 0
            while True:  # sift down
                child = 2 * place + 1
                if child >= room:
                    break
                if child + 1 < room and heap[child + 1] < heap[child]:
                    child += 1
                if heap[child] >= value:
                    break
                heap[place] = heap[child]
                place = child
            heap[place] = value
        total += heap.sum()
    return total
