"""What an item costs on each GPU, given where the items of the neighbouring layers are.

``place[l, g, p]`` is the cost of item p of layer l on GPU g: a trial is O(1), an accepted swap updates two
neighbouring layers in O(S) per GPU whose hop costs differ. With two tiers (one price within nodes, one between them)
these would be all GPUs of two nodes; there ``place[l, G + n, p]`` holds the part that depends on the node alone, and a
swap updates two GPUs and two nodes at most.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["Pairs", "add_place", "add_slot_traffic", "add_traffic", "move_item_cost"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


class Pairs(NamedTuple):
    """What items of neighbouring layers have in common, and what distance costs."""

    forward: Floats  # (L-1, S, S) weighted affinity of items; (0, S, S) if layers are independent, `place` constant
    backward: Floats  # (L-1, S, S) its transpose
    hop: Floats  # (G, G)
    tiers: Floats  # (2,) cost of leaving a GPU, and of leaving the node beyond it; (0,) where hops cost anything else
    node_of_gpu: Ints  # (G,)


@numba.njit(nogil=True, cache=True, inline="always")
def _add_difference(place: Floats, pairs: Floats, p: int, q: int, step: float) -> None:
    for item in range(len(place)):
        place[item] += step * (pairs[p, item] - pairs[q, item])


@numba.njit(nogil=True, cache=True)
def move_item_cost(pairs: Pairs, place: Floats, layer: int, p: int, q: int, a: int, b: int) -> None:
    """Update ``place`` in the layers beside `layer` after item p moved from GPU a to b and q from b to a."""
    forward, backward, hop, tiers, node_of_gpu = pairs
    L, G = len(place), len(hop)
    if len(forward) == 0:
        return
    for side in range(2):
        other = layer + 1 if side == 0 else layer - 1
        if other < 0 or other >= L:
            continue
        weight = forward[layer] if side == 0 else backward[other]
        if len(tiers) > 0:
            _add_difference(place[other, a], weight, p, q, tiers[0])
            _add_difference(place[other, b], weight, p, q, -tiers[0])
            node_a, node_b = node_of_gpu[a], node_of_gpu[b]
            if node_a != node_b:
                _add_difference(place[other, G + node_a], weight, p, q, tiers[1])
                _add_difference(place[other, G + node_b], weight, p, q, -tiers[1])
            continue
        for g in range(G):
            step = hop[b, g] - hop[a, g] if side == 0 else hop[g, b] - hop[g, a]
            if step != 0.0:
                _add_difference(place[other, g], weight, p, q, step)


@numba.njit(nogil=True, cache=True)
def add_place(pairs: Pairs, gpu: Ints, place: Floats) -> None:
    """Fill ``place``, which is zero, from GPUs (L, S).

    With tiers up to a constant per item: it may be any, as items always change places.
    """
    forward, backward, hop, tiers, node_of_gpu = pairs
    L, S = gpu.shape
    G = len(hop)
    by_node = place.shape[1] > G  # a single node has no rows of its own
    for layer in range(L):
        for side in range(2):
            other = layer + 1 if side == 0 else layer - 1
            if other < 0 or other >= L:
                continue
            weight = backward[layer] if side == 0 else forward[other]
            for item in range(S):
                at = gpu[other, item]
                if len(tiers) > 0:
                    place[layer, at] -= tiers[0] * weight[item]
                    if by_node:
                        place[layer, G + node_of_gpu[at]] -= tiers[1] * weight[item]
                    continue
                for g in range(G):
                    step = hop[g, at] if side == 0 else hop[at, g]
                    if step != 0.0:
                        place[layer, g] += step * weight[item]


@numba.njit(nogil=True, cache=True)
def add_traffic(pairs: Floats, gpu: Ints, following: Ints, traffic: Floats) -> None:
    """Add the weight of pairs (S, S) between the GPUs of their items, (S,) each, to `traffic`, (G, G)."""
    for p in range(len(gpu)):
        for q in range(len(following)):
            traffic[gpu[p], following[q]] += pairs[p, q]


@numba.njit(nogil=True, cache=True)
def add_slot_traffic(
    pairs: Floats, expert: Ints, part: Floats, following: Ints, following_part: Floats, traffic: Floats
) -> None:
    """Add the weight of pairs of experts (E, E) between the GPUs of two layers' slots to `traffic`, (G, G).

    Parameters
    ----------
    expert, part, following, following_part : (S,)
        Expert in each slot of the two layers (-1: none), and its share of the expert's tokens.
    """
    per_gpu = len(expert) // len(traffic)
    for s in range(len(expert)):
        i = expert[s]
        if i < 0:
            continue
        for t in range(len(following)):
            j = following[t]
            if j >= 0:
                traffic[s // per_gpu, t // per_gpu] += part[s] * following_part[t] * pairs[i, j]
