"""What steps need: the distinct experts of their tokens, layer by layer, and when each is needed again."""

from __future__ import annotations

import heapq
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["count_pairs", "next_uses", "take_lanes", "unite"]

Ints = npt.NDArray[np.integer[Any]]


@numba.njit(nogil=True, cache=True)
def unite(ids: Ints, bounds: Ints, num_experts: int, start: Ints, expert: Ints, tokens: Ints) -> int:
    """Write the distinct experts of each step and layer, in ascending order, and return how many there are.

    Parameters
    ----------
    ids : (T, L, K) integers
        Tokens in the order of the steps; -1 where an entry is missing.
    bounds : (P + 1,) integers
        Where each step's tokens begin, and where the last one's end.
    num_experts : int
    start : (P * L + 1,) integers
        Set to where each set begins.
    expert, tokens : (A,) integers
        Set to the experts, and to their tokens.
    """
    count = np.zeros(num_experts, np.int64)
    at = 0
    start[0] = 0
    for step in range(len(bounds) - 1):
        for layer in range(ids.shape[1]):
            for token in range(bounds[step], bounds[step + 1]):
                for k in range(ids.shape[2]):
                    if ids[token, layer, k] >= 0:
                        count[ids[token, layer, k]] += 1
            for e in range(num_experts):
                if count[e]:
                    expert[at] = e
                    tokens[at] = count[e]
                    count[e] = 0
                    at += 1
            start[step * ids.shape[1] + layer + 1] = at
    return at


@numba.njit(nogil=True, cache=True)
def take_lanes(size: Ints, lanes: int, begin: Ints, lane: Ints) -> None:
    """Give each sequence the lane that is free first, in their order.

    Parameters
    ----------
    size : (S,) integers
        Tokens of each sequence.
    lanes : int
    begin, lane : (S,) integers
        Set to the step that each sequence begins with, and to its lane.
    """
    free = [(0, number) for number in range(min(lanes, len(size)))]  # a heap from the start, as it ascends
    for sequence in range(len(size)):
        begin[sequence], lane[sequence] = free[0]
        heapq.heapreplace(free, (begin[sequence] + size[sequence], lane[sequence]))


@numba.njit(nogil=True, cache=True)
def next_uses(start: Ints, expert: Ints, num_layers: int, num_experts: int, following: Ints, first: Ints) -> None:
    """Write in which set each access's expert is needed next.

    Parameters
    ----------
    start, expert : integers
        Of `unite`.
    num_layers, num_experts : int
    following : (A,) integers
        Set to the number of the next set with the same expert of the same layer; to the number of sets where there is
        none.
    first : (L * E,) integers
        Set to the first set with each expert.
    """
    sets = len(start) - 1
    first[:] = sets
    for index in range(sets - 1, -1, -1):
        base = (index % num_layers) * num_experts
        for access in range(start[index], start[index + 1]):
            item = base + expert[access]
            following[access] = first[item]
            first[item] = index


@numba.njit(nogil=True, cache=True)
def count_pairs(ids: Ints, lookahead: int, pairs: Ints) -> None:
    """Count the tokens that use an expert of a layer and another one some layers later.

    Parameters
    ----------
    ids : (T, L, K) integers
    lookahead : int
        Layers between both.
    pairs : (L - lookahead, E, E) integers
        Added to.
    """
    for token in range(ids.shape[0]):
        for layer in range(pairs.shape[0]):
            for i in range(ids.shape[2]):
                if ids[token, layer, i] < 0:
                    continue
                row = pairs[layer, ids[token, layer, i]]
                for j in range(ids.shape[2]):
                    if ids[token, layer + lookahead, j] >= 0:
                        row[ids[token, layer + lookahead, j]] += 1
