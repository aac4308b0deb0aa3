"""Tokens choose those of their experts of which few are together, to tell how many blocks they need at least."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from traces.support.copying import copy_row

__all__ = ["choose_representatives"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
STARTS = 2  # beginnings, with each of the two that are least at home; chosen by trial


@numba.njit(nogil=True, cache=True)
def choose_representatives(
    ids: Ints,
    homes: Ints,
    together: Floats,
    at_home: Floats,
    called: Floats,
    pairs: Floats,
    by_home: Floats,
    counts: Floats,
) -> None:
    """Add up what each token counts: `a` per expert that it chose, and `b` per pair of them.

    Of experts that are away s times with p pairs together, ``a s - b p`` is largest for ``a = 2/(m+1)``,
    ``b = 2/(m (m+1))`` with ``m = floor(2 p / s) + 1``. Experts are taken one by one, each the one that is least at
    home and together with those before, from one or the other of the two that are least at home; the best of what there
    is after each counts.

    Parameters
    ----------
    ids : (n, K) integers
        -1 for none.
    homes : (n,) integers
        Block of each token's home.
    together : (E, E) float64
        How much each pair is together.
    at_home : (E, blocks) float64
        How much each expert is in each block, 0 to 1.
    called : (E, blocks) float64
        Added to: `a`, by expert and home.
    pairs : (H, E, E) float64
        Added to: `b`, by home (or for all of them, with H = 1), both halves.
    by_home : (E, blocks) float64
        Added to: the sum over partners of `b`, by expert and home.
    counts : (n, K (K-1)/2) float64
        Added to: `b`, by token and pair of columns, k and j < k in place ``k (k-1)/2 + j``; not counted with n = 0.
    """
    tokens, top_k = ids.shape
    column = np.empty(top_k, np.int64)
    mine, order, best_order = np.empty(top_k, ids.dtype), np.empty(top_k, np.int64), np.empty(top_k, np.int64)
    here, met, shared = np.empty(top_k), np.empty(top_k), np.empty((top_k, top_k))
    for token in range(tokens):
        home, used = homes[token], 0
        for k in range(top_k):
            if ids[token, k] >= 0:
                mine[used], column[used] = ids[token, k], k
                here[used] = at_home[ids[token, k], home]
                used += 1
        for k in range(used):
            for other in range(used):
                shared[k, other] = together[mine[k], mine[other]]
        best, chosen, each, pair = 0.0, 0, 0.0, 0.0
        begun = -1
        for _ in range(min(STARTS, used)):
            next_one = -1
            for k in range(used):
                if k != begun and (next_one < 0 or here[k] < here[next_one]):
                    next_one = k
            begun = next_one
            met[:used] = 0.0
            p, s = 0.0, 0.0
            for size in range(1, used + 1):
                p += met[next_one]
                s += 1.0 - here[next_one]
                met[next_one] = np.inf
                order[size - 1] = next_one
                if s > 0.0:
                    m = np.floor(2.0 * p / s) + 1.0
                    a, b = 2.0 / (m + 1.0), 2.0 / (m * (m + 1.0))
                    if a * s - b * p > best:
                        best, chosen, each, pair = a * s - b * p, size, a, b
                        copy_row(order[:size], best_order)
                last, next_one = next_one, -1
                for k in range(used):
                    if met[k] < np.inf:
                        met[k] += shared[k, last]
                        if next_one < 0 or met[k] + here[k] < met[next_one] + here[next_one]:
                            next_one = k
        own = home if len(pairs) > 1 else 0
        for place in range(chosen):
            k = best_order[place]
            expert = mine[k]
            called[expert, home] += each
            for before in range(place):
                j = best_order[before]
                other = mine[j]
                pairs[own, expert, other] += pair
                pairs[own, other, expert] += pair
                if len(counts):
                    high, low = max(column[k], column[j]), min(column[k], column[j])
                    counts[token, high * (high - 1) // 2 + low] += pair
            by_home[expert, home] += pair * (chosen - 1)
