"""Tokens choose those of their experts of which few are together, to tell how many blocks they need at least."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["MOST_CLASSES", "choose_representatives"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Drawn = npt.NDArray[np.uint64]
STARTS = 2  # beginnings with each of the first two that the token lists; chosen by trial
MOST_CLASSES = 6  # replicas up to which the tokens that use each are told apart; more hardly ever pay


@numba.njit(nogil=True, cache=True)
def choose_representatives(
    ids: Ints,
    homes: Ints,
    drawn: Drawn,
    together: Floats,
    called: Floats,
    pairs: Floats,
    by_home: Floats,
    by_replica: Floats,
) -> None:
    """Add up what each token counts: `a` per expert that it chose, and `b` per pair of them.

    Of s experts with p pairs together, ``a s - b p`` is largest for ``a = 2/(m+1)``, ``b = 2/(m (m+1))`` with
    ``m = floor(2 p / s) + 1``. Experts are taken one by one, each the one that is least together with those before,
    from one or the other of the first two on; the best of what there is after each counts.

    Parameters
    ----------
    ids : (n, K) integers
        -1 for none.
    homes : (n,) integers
        Block of each token's home.
    drawn : (n, K) uint64
        What a token's replica of an expert with r replicas is drawn by: number ``drawn % r``, where none is at home.
    together : (E, E) float64
        How much each pair is together.
    called : (E, blocks) float64
        Added to: `a`, by expert and home.
    pairs : (H, E, E) float64
        Added to: `b`, by home (or for all of them, with H = 1), both halves.
    by_home : (E, blocks) float64
        Added to: the sum over partners of `b`, by expert and home.
    by_replica : (P, E, E) float64
        Added to: `b`, by the expert in the first place and its replica, first of two, then of three, and so on; no such
        counts with P = 0.
    """
    tokens, top_k = ids.shape
    column = np.empty(top_k, np.int64)
    mine, order, best_order = np.empty(top_k, ids.dtype), np.empty(top_k, np.int64), np.empty(top_k, np.int64)
    met, shared = np.empty(top_k), np.empty((top_k, top_k))
    for token in range(tokens):
        used = 0
        for k in range(top_k):
            if ids[token, k] >= 0:
                mine[used], column[used] = ids[token, k], k
                used += 1
        for k in range(used):
            for other in range(used):
                shared[k, other] = together[mine[k], mine[other]]
        best, chosen, each, pair = 0.0, 0, 0.0, 0.0
        for start in range(min(STARTS, used)):
            met[:used] = 0.0
            p, next_one = 0.0, start
            for size in range(1, used + 1):
                p += met[next_one]
                met[next_one] = np.inf
                order[size - 1] = next_one
                m = np.floor(2.0 * p / size) + 1.0
                a, b = 2.0 / (m + 1.0), 2.0 / (m * (m + 1.0))
                if a * size - b * p > best:
                    best, chosen, each, pair = a * size - b * p, size, a, b
                    best_order[:size] = order[:size]
                last, next_one = next_one, -1
                for k in range(used):
                    if met[k] < np.inf:
                        met[k] += shared[k, last]
                        if next_one < 0 or met[k] < met[next_one]:
                            next_one = k
        home = homes[token]
        own = home if len(pairs) > 1 else 0
        for place in range(chosen):
            expert = mine[best_order[place]]
            called[expert, home] += each
            for before in range(place):
                other = mine[best_order[before]]
                pairs[own, expert, other] += pair
                pairs[own, other, expert] += pair
            by_home[expert, home] += pair * (chosen - 1)
            if len(by_replica):
                number = 0
                for replicas in range(2, MOST_CLASSES + 1):
                    replica = number + np.int64(drawn[token, column[best_order[place]]] % np.uint64(replicas))
                    for met_by in range(chosen):
                        if met_by != place:
                            by_replica[replica, expert, mine[best_order[met_by]]] += pair
                    number += replicas
