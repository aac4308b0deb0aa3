"""Sets of sampled tokens as bits, 64 in a word, and what they cost: counted by the word, not by the token.

A place (a GPU, or a node) counts each token's assignments there in *planes*: bit b of the counts of 64 tokens is a word
of plane b. Two sets follow from the counts: the tokens that the place does not serve yet, and those that it serves
once. The first pay for an expert that comes, the second no longer pay for one that leaves.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from solvers.methods.annealing.replay.kernels.state import Floats, Words

__all__ = ["exchange_change", "in_common", "popcount", "shift", "shift_change"]


def _count(_context: Any, _word: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


# How many bits of a uint64 are set: one instruction.
popcount: Any = intrinsic(_count)


@numba.njit(nogil=True, cache=True)
def exchange_change(
    first: Words,
    second: Words,
    zero_a: Words,
    zero_b: Words,
    one_a: Words,
    one_b: Words,
    value: Floats,
    begin: int,
    end: int,
) -> tuple[float, float]:
    """Return the change of the message cost if `first` goes from place a to b, and `second` from b to a.

    Parameters
    ----------
    first, second : (W,) uint64
        The tokens of each. Those of both go on using both places.
    zero_a, zero_b, one_a, one_b : (n, W) uint64
        By price, the tokens that the places serve not at all, and once.
    value : (n,) float64
        Prices of a message.
    begin, end : int
        Words to look at.

    Returns
    -------
    float, float
        The change, and the sum of its squares over the tokens.
    """
    change, squares = 0.0, 0.0
    for c in range(len(value)):
        come, gone = np.int64(0), np.int64(0)
        for w in range(begin, end):
            x, y = first[w], second[w]
            both = x & y
            x ^= both
            y ^= both
            come += np.int64(popcount((x & zero_b[c, w]) | (y & zero_a[c, w])))
            gone += np.int64(popcount((x & one_a[c, w]) | (y & one_b[c, w])))
        change += value[c] * (come - gone)
        squares += value[c] * value[c] * (come + gone)
    return change, squares


@numba.njit(nogil=True, cache=True)
def in_common(first: Words, second: Words, begin: int, end: int) -> int:
    """Return how many tokens of the words from `begin` to `end` are in both sets."""
    count = np.int64(0)
    for w in range(begin, end):
        count += np.int64(popcount(first[w] & second[w]))
    return int(count)


@numba.njit(nogil=True, cache=True)
def shift_change(
    less: Words, more: Words, without: Words, zero: Words, one: Words, value: Floats, begin: int, end: int
) -> tuple[float, float]:
    """Return what `shift` would, but of the tokens that are not in `without` only, and change nothing.

    The words are those from `begin` to `end`; what is returned, see `exchange_change`.
    """
    change, squares = 0.0, 0.0
    for c in range(len(value)):
        come, gone = np.int64(0), np.int64(0)
        for w in range(begin, end):
            differs = (less[w] ^ more[w]) & ~without[w]
            come += np.int64(popcount(differs & more[w] & zero[c, w]))
            gone += np.int64(popcount(differs & less[w] & one[c, w]))
        change += value[c] * (come - gone)
        squares += value[c] * value[c] * (come + gone)
    return change, squares


@numba.njit(nogil=True, cache=True)
def shift(
    less: Words,
    more: Words,
    planes: Words,
    zero: Words,
    one: Words,
    mask: Words,
    value: Floats,
    distinct: bool,
) -> float:
    """Take an assignment of the tokens `less` from a place, and give it one of `more`; return the change of its cost.

    Parameters
    ----------
    less, more : (W,) uint64
    planes : (b, W) uint64
        Changed, as are `zero` and `one`, where a place pays once for a token (`distinct`).
    zero, one, mask : (n, W) uint64
        By price: tokens that pay it, and of these those without an assignment here, and with a single one.
    value : (n,) float64
    """
    change = 0.0
    for w in range(len(less)):
        both = less[w] & more[w]
        borrow, carry = less[w] ^ both, more[w] ^ both
        if borrow == 0 and carry == 0:
            continue
        if not distinct:
            for c in range(len(value)):
                change += value[c] * (np.int64(popcount(carry & mask[c, w])) - np.int64(popcount(borrow & mask[c, w])))
            continue
        lowest = np.uint64(0)
        higher = np.uint64(0)
        for b in range(len(planes)):
            p = planes[b, w]
            q = p ^ borrow
            borrow &= ~p
            r = q ^ carry
            carry &= q
            planes[b, w] = r
            if b:
                higher |= r
            else:
                lowest = r
        for c in range(len(value)):
            m = mask[c, w]
            none = m & ~(lowest | higher)
            change += value[c] * (np.int64(popcount(zero[c, w])) - np.int64(popcount(none)))
            zero[c, w] = none
            one[c, w] = m & lowest & ~higher
    return change
