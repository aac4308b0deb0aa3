"""A binary heap of numbered items, compiled: the item with the least key on top, the lower number among equal keys."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["TOP", "heapify", "sift_down", "sift_up"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
TOP = np.int64(0)  # of a heap. No literal: numba compiles a function for each of them


@numba.njit(nogil=True, cache=True)
def sift_down(heap: Ints, key: Floats, size: int, at: int) -> None:
    """Restore the order of ``heap[:size]`` after the key of the item at position `at` has grown.

    Parameters
    ----------
    heap : (n,) int64
        Items; only the first `size` are in the heap.
    key : (items,) float64
        Key of each item.
    size, at : int
    """
    item = heap[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        left = heap[child]
        if child + 1 < size:
            right = heap[child + 1]
            if key[right] < key[left] or (key[right] == key[left] and right < left):
                child, left = child + 1, right
        if key[item] < key[left] or (key[item] == key[left] and item < left):
            break
        heap[at] = left
        at = child
    heap[at] = item


@numba.njit(nogil=True, cache=True)
def sift_up(heap: Ints, key: Floats, at: int) -> None:
    """Restore the order of ``heap[: at + 1]`` after an item was put at its end."""
    item = heap[at]
    while at > 0:
        parent = heap[(at - 1) // 2]
        if key[parent] < key[item] or (key[parent] == key[item] and parent < item):
            break
        heap[at] = parent
        at = (at - 1) // 2
    heap[at] = item


@numba.njit(nogil=True, cache=True)
def heapify(heap: Ints, key: Floats, size: int) -> None:
    """Order ``heap[:size]``."""
    for at in range(size // 2 - 1, -1, -1):
        sift_down(heap, key, size, at)
