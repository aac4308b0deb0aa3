"""How far tokens' draws of their replicas may be from an even split, at most, whatever the neighbours are."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["MOST_DRAWN", "NUM_DRAWN", "draws_of", "most_above_even"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]
Draws = npt.NDArray[np.int8]
MOST_DRAWN = 6  # replicas up to which draws are counted: time grows with the square; more prove little more
NUM_DRAWN = MOST_DRAWN * (MOST_DRAWN + 1) // 2  # replicas of experts with one, two, ... of them


@numba.njit(nogil=True, cache=True, inline="always")
def _first(replicas: int) -> int:
    """Return the number of the first replica of an expert with so many."""
    return replicas * (replicas - 1) // 2


@numba.njit(nogil=True, cache=True)
def draws_of(drawn: npt.NDArray[np.uint64]) -> Draws:
    """Return the number of the replica that is drawn, of 1, 2, ... `MOST_DRAWN`: (n, K, MOST_DRAWN) int8."""
    tokens, top_k = drawn.shape
    draws = np.empty((tokens, top_k, MOST_DRAWN), np.int8)
    for token in range(tokens):
        for k in range(top_k):
            for replicas in range(1, MOST_DRAWN + 1):
                number = np.int64(drawn[token, k] % np.uint64(replicas))
                draws[token, k, replicas - 1] = _first(replicas) + number
    return draws


@numba.njit(nogil=True, cache=True)
def _by_expert(ids: Ints, experts: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the places in `ids` of each expert, one expert after the other, and where each begins, (E + 1,)."""
    tokens, top_k = ids.shape
    begin = np.zeros(experts + 1, np.int64)
    for token in range(tokens):
        for k in range(top_k):
            if ids[token, k] >= 0:
                begin[ids[token, k] + 1] += 1
    for e in range(experts):
        begin[e + 1] += begin[e]
    place, next_one = np.empty(begin[experts], np.int64), begin[:-1].copy()
    for token in range(tokens):
        for k in range(top_k):
            e = ids[token, k]
            if e >= 0:
                place[next_one[e]] = token * top_k + k
                next_one[e] += 1
    return place, begin


@numba.njit(nogil=True, cache=True)
def most_above_even(
    ids: Ints,
    homes: Ints,
    draws: Draws,
    counts: Floats,
    pairs: Floats,
    blocks: int,
    with_replica: Ints,
    fewest: int,
    slots: int,
    wanted: Ints,
    most: Floats,
) -> None:
    """Find how many pairs more than an even split the replicas of an expert can serve together with others.

    Of an expert with r replicas, replica i serves a pair together where its block has the other expert, too. Were draws
    even, these tokens would be ``pairs / r``. A block has ``slots`` others, so the sum of the largest differences is
    the most. Where the other has replicas as well, half of the difference is its own.

    Parameters
    ----------
    ids : (n, K) integers
        -1 for none.
    homes : (n,) int64
        Block of each token's home.
    draws : (n, K, MOST_DRAWN) int8
        As `draws_of` returns.
    counts : (n, K (K-1)/2) float64
        What a pair of a token counts where it is together; of the columns k and j < k in place ``k (k-1)/2 + j``.
    pairs : (E, E) float64
        What counts for an even split.
    blocks : int
        Homes, those without tokens included.
    with_replica : (2, MOST_DRAWN + 1) int64
        Homes that have one of so many replicas, at least, in either way of `most`: their tokens don't draw.
    fewest : int
        Replicas from which on draws are looked at: 1 where `pairs` may be less than what one replica serves.
    slots : int
        Of a block, less one.
    wanted : (m,) integers
        Experts to look at.
    most : (E, MOST_DRAWN + 1, 2) float64
        Set by expert, replicas and way.
    """
    experts, top_k = len(pairs), ids.shape[1]
    place, begin = _by_expert(ids, experts)
    single, joint = np.empty((NUM_DRAWN, experts, blocks)), np.empty((NUM_DRAWN, experts, NUM_DRAWN))
    pool, best = np.empty((2, experts * MOST_DRAWN)), np.empty(MOST_DRAWN)
    in_use = np.empty(2, np.int64)
    for e in wanted:
        most[e] = 0.0
        single[:] = 0.0
        joint[:] = 0.0
        for position in range(begin[e], begin[e + 1]):
            token, k = divmod(place[position], top_k)
            home = homes[token]
            for j in range(top_k):
                f = ids[token, j]
                if f < 0 or j == k:
                    continue
                count = counts[token, k * (k - 1) // 2 + j] if j < k else counts[token, j * (j - 1) // 2 + k]
                if count <= 0.0:
                    continue
                for choice in range(fewest - 1, MOST_DRAWN):
                    mine = draws[token, k, choice]
                    single[mine, f, home] += count
                    for other in range(1, MOST_DRAWN):
                        joint[mine, f, draws[token, j, other]] += count
        for replicas in range(fewest, MOST_DRAWN + 1):
            for mine in range(_first(replicas), _first(replicas) + replicas):
                in_use[:] = 0
                for f in range(experts):
                    if f == e or pairs[e, f] <= 0.0:
                        continue
                    _best_of_both(joint[mine, f], pairs[e, f] / replicas, best)
                    own, even = single[mine, f], pairs[e, f] / replicas
                    total = own.sum()
                    for way in range(2):
                        served = total - _smallest(own, with_replica[way, replicas])
                        above = max(served - even, best[0])
                        if above <= 0.0:
                            continue
                        pool[way, in_use[way]] = above
                        in_use[way] += 1
                        for number in range(1, MOST_DRAWN):
                            if best[number] <= 0.0:
                                break
                            pool[way, in_use[way]] = best[number]
                            in_use[way] += 1
                for way in range(2):
                    most[e, replicas, way] += _sum_largest(pool[way, : in_use[way]], slots)


@numba.njit(nogil=True, cache=True)
def _best_of_both(drawn: Floats, even: float, best: Floats) -> None:
    """Set `best` to half of what 1, 2, ... replicas of another expert add at most, each no more than those before."""
    best[:] = 0.0
    for replicas in range(2, MOST_DRAWN + 1):
        first = _first(replicas)
        for number in range(first, first + replicas):
            above, larger = (drawn[number] - even / replicas) / 2, 0
            if above <= 0.0:
                continue
            for other in range(first, first + replicas):
                larger += drawn[other] > drawn[number] or (drawn[other] == drawn[number] and other < number)
            best[larger] = max(best[larger], above)


@numba.njit(nogil=True, cache=True)
def _smallest(values: Floats, count: int) -> float:
    """Return the sum of the `count` smallest values."""
    total, after, last = 0.0, -np.inf, -1
    for _ in range(count):
        least, place = np.inf, -1
        for number in range(len(values)):
            value = values[number]
            if (value > after or (value == after and number > last)) and value < least:
                least, place = value, number
        total += least
        after, last = least, place
    return total


@numba.njit(nogil=True, cache=True)
def _sum_largest(values: Floats, count: int) -> float:
    """Return the sum of the `count` largest values."""
    if count <= 0:
        return 0.0
    if len(values) <= count:
        return float(values.sum())
    return float(np.partition(values, len(values) - count)[len(values) - count :].sum())
