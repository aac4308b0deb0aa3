"""All sets of k of a layer's experts, in lexicographic order: what each costs on a GPU, and sums over its members."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["members_of", "number_of", "sum_subsets", "tabulate_subsets"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Numbers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


@numba.njit(nogil=True, cache=True)
def _ones(word: np.uint64) -> np.int64:
    """Return the number of ones in a word (adding neighbouring groups of bits, each time twice as many)."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@numba.njit(nogil=True, cache=True)
def _advance(chosen: Ints, experts: int) -> int:
    """Turn a set into the next one; return the first place that changed, -1 after the last set."""
    size = len(chosen)
    place = size - 1
    while place >= 0 and chosen[place] == experts - size + place:
        place -= 1
    if place >= 0:
        chosen[place] += 1
        for later in range(place + 1, size):
            chosen[later] = chosen[later - 1] + 1
    return place


@numba.njit(nogil=True, cache=True)
def tabulate_subsets(
    tokens: Words, start: Ints, hop: Floats, covariance: Floats, size: int, cost: Floats, variance: Floats
) -> None:
    """Fill what the messages to each set cost on each GPU, and the variance of its load.

    Parameters
    ----------
    tokens : (E, W) uint64
        A bit per token that uses the expert, tokens in the order of their homes.
    start : (G + 1,) integers
        Word where the tokens of each home start.
    hop : (G, G) float64
        Cost of a message from home h to GPU g.
    covariance : (E, E) float64, or (0, 0)
        Of the experts' loads.
    size : int
        Experts of a set, at least 1.
    cost : (n, G) float64 or float32
        Filled: messages times hop cost, for the set on each GPU.
    variance : (n,) or (0,) float64
        Filled, unless empty.
    """
    experts, words = tokens.shape
    gpus = len(start) - 1
    chosen = np.arange(size)
    union = np.zeros((size, words), np.uint64)  # of the members before each place
    spread = np.zeros(size + 1)
    touched = np.zeros(gpus, np.int64)
    changed, number = 0, 0
    while changed >= 0:
        for place in range(changed, size - 1):
            member = chosen[place]
            for w in range(words):
                union[place + 1, w] = union[place, w] | tokens[member, w]
        member = chosen[size - 1]
        touched[:] = 0
        for home in range(gpus):
            for w in range(start[home], start[home + 1]):
                touched[home] += _ones(union[size - 1, w] | tokens[member, w])
        for gpu in range(gpus):
            total = 0.0
            for home in range(gpus):
                total += hop[home, gpu] * touched[home]
            cost[number, gpu] = total
        if len(variance):
            for place in range(changed, size):
                member = chosen[place]
                both = covariance[member, member]
                for earlier in range(place):
                    both += 2 * covariance[member, chosen[earlier]]
                spread[place + 1] = spread[place] + both
            variance[number] = spread[size]
        number += 1
        changed = _advance(chosen, experts)


@numba.njit(nogil=True, cache=True)
def sum_subsets(values: Floats, size: int, total: Floats) -> None:
    """Fill the sum of `values` (E,) over the members of each set, (n,)."""
    experts = len(values)
    chosen = np.arange(size)
    partial = np.zeros(size + 1)
    changed, number = 0, 0
    while changed >= 0:
        for place in range(changed, size):
            partial[place + 1] = partial[place] + values[chosen[place]]
        total[number] = partial[size]
        number += 1
        changed = _advance(chosen, experts)


@numba.njit(nogil=True, cache=True)
def number_of(members: Ints, choose: Ints) -> Numbers:
    """Return the place of each set in the order, (k,).

    Parameters
    ----------
    members : (k, size) integers
        Ascending.
    choose : (E + 1, size + 1) integers
        Binomial coefficients.
    """
    experts, size = len(choose) - 1, members.shape[1]
    result = np.zeros(len(members), np.int64)
    for row in range(len(members)):
        # Sets that come later: those whose first difference is larger.
        later = 0
        for place in range(size):
            later += choose[experts - 1 - members[row, place], size - place]
        result[row] = choose[experts, size] - 1 - later
    return result


@numba.njit(nogil=True, cache=True)
def members_of(numbers: Ints, choose: Ints) -> Numbers:
    """Return the members of the sets at some places in the order, (k, size), ascending."""
    experts, size = len(choose) - 1, choose.shape[1] - 1
    result = np.zeros((len(numbers), size), np.int64)
    for row in range(len(numbers)):
        later = choose[experts, size] - 1 - numbers[row]
        rest = experts - 1  # the largest count that may come next, in terms of experts above
        for place in range(size):
            while choose[rest, size - place] > later:
                rest -= 1
            later -= choose[rest, size - place]
            result[row, place] = experts - 1 - rest
            rest -= 1
    return result
