"""What messages to GPUs and nodes cost the sampled tokens, as sets of tokens by price."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.methods.annealing.replay.kernels.state import Level

__all__ = ["as_bits", "level_of"]

# A level of more prices is searched with so many, each the mean of those around it; plans are scored by the real ones.
MAX_PRICES = 8

Array = npt.NDArray[np.float64]


def level_of(cost: Array, home: npt.NDArray[np.integer[Any]], top_k: int, *, distinct: bool) -> Level:
    """Return a level without any token served yet.

    Parameters
    ----------
    cost : (G, B) float64
        Of a message from each home to each place; no places where there is none.
    home : (n,) integers
    top_k : int
        Assignments of a token, at most.
    distinct : bool
        Whether a place pays once for a token, however many of its experts are there.
    """
    value, kind = _prices(cost)
    words, places = -(-len(home) // 64), cost.shape[1]
    mask = np.zeros((places, len(value), words), np.uint64)
    for place in range(places):
        for price in range(len(value)):
            mask[place, price] = as_bits(kind[home, place] == price)
    if not distinct:
        return Level(np.zeros((places, 0, words), np.uint64), mask, mask, mask, value)
    planes = np.zeros((places, (top_k + 1).bit_length(), words), np.uint64)  # one more while tokens are on their way
    return Level(planes, mask.copy(), np.zeros_like(mask), mask, value)


def as_bits(member: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Return a set of tokens, (n,) bool, as words of 64, (ceil(n / 64),)."""
    padded = np.zeros(-(-len(member) // 64) * 64, bool)
    padded[: len(member)] = member
    return np.packbits(padded, bitorder="little").view("<u8").astype(np.uint64)


def _prices(cost: Array) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the prices above 0, (n,), and which of them each entry of a cost matrix is, -1 for 0."""
    value, kind = np.unique(cost, return_inverse=True)
    kind = kind.reshape(cost.shape)
    free = int(len(value) > 0 and value[0] == 0)
    value, kind = value[free:], kind - free
    if len(value) > MAX_PRICES:
        group = np.repeat(np.arange(MAX_PRICES), [len(part) for part in np.array_split(value, MAX_PRICES)])
        sizes = np.bincount(kind[kind >= 0], minlength=len(value))
        value = np.bincount(group, sizes * value) / np.bincount(group, sizes)
        kind = np.where(kind < 0, -1, group[kind])
    return np.ascontiguousarray(value, np.float64), kind
