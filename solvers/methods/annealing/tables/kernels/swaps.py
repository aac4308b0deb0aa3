"""Annealing by swaps on the context-coherent objective.

An *item* is what a slot holds: an expert, one replica of it, or nothing. Each GPU has room for the same number of
items, so all arrangements are reached by swapping items between GPUs. ``place[l, g, p]`` is the cost of item p of layer
l on GPU g, given where the items of the neighbouring layers are: a trial is O(1), an accepted swap updates two
neighbouring layers in O(S) per GPU whose hop costs differ. With two tiers (one price within nodes, one between them)
these would be all GPUs of two nodes; there ``place[l, G + n, p]`` holds the part that depends on the node alone, and a
swap updates two GPUs and two nodes at most.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from solvers.searching.kernels.random import State, next_below, next_unit

__all__ = ["add_place", "add_slot_traffic", "add_traffic", "anneal", "move_item_cost"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


@numba.njit(nogil=True, cache=True, inline="always")
def _add_difference(place: Floats, pairs: Floats, p: int, q: int, step: float) -> None:
    for item in range(len(place)):
        place[item] += step * (pairs[p, item] - pairs[q, item])


@numba.njit(nogil=True, cache=True)
def move_item_cost(
    forward: Floats,
    backward: Floats,
    place: Floats,
    hop: Floats,
    tiers: Floats,
    node_of_gpu: Ints,
    layer: int,
    p: int,
    q: int,
    a: int,
    b: int,
) -> None:
    """Update ``place`` in the layers beside `layer` after item p moved from GPU a to b and q from b to a."""
    L, G = len(place), len(hop)
    if len(forward) == 0:
        return
    for side in range(2):
        other = layer + 1 if side == 0 else layer - 1
        if other < 0 or other >= L:
            continue
        pairs = forward[layer] if side == 0 else backward[other]
        if len(tiers) > 0:
            _add_difference(place[other, a], pairs, p, q, tiers[0])
            _add_difference(place[other, b], pairs, p, q, -tiers[0])
            node_a, node_b = node_of_gpu[a], node_of_gpu[b]
            if node_a != node_b:
                _add_difference(place[other, G + node_a], pairs, p, q, tiers[1])
                _add_difference(place[other, G + node_b], pairs, p, q, -tiers[1])
            continue
        for g in range(G):
            step = hop[b, g] - hop[a, g] if side == 0 else hop[g, b] - hop[g, a]
            if step != 0.0:
                _add_difference(place[other, g], pairs, p, q, step)


@numba.njit(nogil=True, cache=True)
def add_place(
    forward: Floats, backward: Floats, hop: Floats, tiers: Floats, node_of_gpu: Ints, gpu: Ints, place: Floats
) -> None:
    """Fill ``place``, which is zero, from GPUs (L, S).

    With tiers up to a constant per item: it may be any, as items always change places.
    """
    L, S = gpu.shape
    G = len(hop)
    by_node = place.shape[1] > G  # a single node has no rows of its own
    for layer in range(L):
        for side in range(2):
            other = layer + 1 if side == 0 else layer - 1
            if other < 0 or other >= L:
                continue
            pairs = backward[layer] if side == 0 else forward[other]
            for item in range(S):
                at = gpu[other, item]
                if len(tiers) > 0:
                    place[layer, at] -= tiers[0] * pairs[item]
                    if by_node:
                        place[layer, G + node_of_gpu[at]] -= tiers[1] * pairs[item]
                    continue
                for g in range(G):
                    step = hop[g, at] if side == 0 else hop[at, g]
                    if step != 0.0:
                        place[layer, g] += step * pairs[item]


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


@numba.njit(nogil=True, cache=True, inline="always")
def _over(value: float, cap: float) -> float:
    return value - cap if value > cap else 0.0


@numba.njit(nogil=True, cache=True)
def anneal(
    forward: Floats,
    backward: Floats,
    hop: Floats,
    tiers: Floats,
    load: Floats,
    cap: Floats,
    excess_weight: float,
    max_weight: float,
    covariance: Floats,
    margin: Floats,
    spread_weight: float,
    spread_free: float,
    expert: Ints,
    lock: Ints,
    allowed: npt.NDArray[np.bool_],
    check_allowed: bool,
    node_of_gpu: Ints,
    gpu: Ints,
    place: Floats,
    gpu_load: Floats,
    held: Ints,
    together: Floats,
    variance: Floats,
    trials: int,
    temperature: float,
    rng: State,
) -> float:
    """Run `trials` swap trials at one temperature.

    Parameters
    ----------
    forward, backward : (L-1, S, S) float
        Weighted affinity of items, and its transpose; (0, S, S) if the layers are independent and `place` is constant.
    hop : (G, G) float64
    tiers : (2,) or (0,) float64
        Cost of leaving a GPU, and what leaving the node costs beyond it; empty where `hop` has other costs than these.
    load : (L, S, G) or (L, S, 1) float64
        Load of each item relative to the fair share of each GPU.
    cap : (L,) float64
        Load cap of each layer; infinite for none.
    excess_weight, max_weight : float
        Cost per unit of load above the cap, and cost per unit of a layer's largest load.
    covariance : (L, S, S) float64
        Covariance of the items' loads, relative to the mean fair share.
    margin : (G,) or (0,) float64
        Added to the load that the cap is held against, per unit of the square root of a GPU's `variance`; empty if the
        cap is held against the load alone. Not with a `spread_weight`.
    spread_weight, spread_free : float
        Cost per unit of the sum over layers of the square root of `variance`, as far as it is above `spread_free`.
    expert : (L, S) int64
        Expert of each item if it has several replicas that must be on different GPUs, else -1.
    lock : (L, S) int8
        0 free, 1 stays on its node, 2 stays on its GPU.
    allowed : (L, S, G) bool
        Looked at if `check_allowed`.
    gpu, place, gpu_load, held
        State, changed in place: GPU of each item (L, S); cost of each item on each GPU, (L, G, S), or on each GPU and
        node, (L, G + N, S); loads (L, G); replicas of an expert on a GPU (L, E, G).
    together, variance
        State too, with a margin or a spread weight: covariance of each item with the items on each GPU (L, G, S), and
        the variance of the GPUs' loads, (L, G) with a margin, or its sum over GPUs (L, 1).
    rng : (2,) uint64

    Returns
    -------
    float
        The change of the objective over all accepted swaps.
    """
    L, S, G = len(place), place.shape[2], len(hop)
    by_node = place.shape[1] > G
    wide = load.shape[2] > 1
    guarded = len(margin) > 0
    change = total_spread = 0.0
    if spread_weight != 0.0:
        total_spread = np.sqrt(np.maximum(variance, 0.0)).sum()
    for _ in range(trials):
        layer = next_below(rng, L)
        p = next_below(rng, S)
        q = next_below(rng, S)
        a = gpu[layer, p]
        b = gpu[layer, q]
        if a == b:
            continue
        if (lock[layer, p] | lock[layer, q]) and (
            lock[layer, p] == 2 or lock[layer, q] == 2 or node_of_gpu[a] != node_of_gpu[b]
        ):
            continue
        delta = place[layer, b, p] - place[layer, a, p] + place[layer, a, q] - place[layer, b, q]
        if by_node and node_of_gpu[a] != node_of_gpu[b]:
            n, m = G + node_of_gpu[a], G + node_of_gpu[b]
            delta += place[layer, m, p] - place[layer, n, p] + place[layer, n, q] - place[layer, m, q]
        if wide:
            on_a = gpu_load[layer, a] + load[layer, q, a] - load[layer, p, a]
            on_b = gpu_load[layer, b] + load[layer, p, b] - load[layer, q, b]
        else:
            step = load[layer, q, 0] - load[layer, p, 0]
            on_a = gpu_load[layer, a] + step
            on_b = gpu_load[layer, b] - step
        limit = cap[layer]
        variance_a = variance_b = 0.0
        if guarded:
            own = covariance[layer, p, p] + covariance[layer, q, q] - 2.0 * covariance[layer, p, q]
            variance_a = variance[layer, a] + 2.0 * (together[layer, a, q] - together[layer, a, p]) + own
            variance_b = variance[layer, b] + 2.0 * (together[layer, b, p] - together[layer, b, q]) + own
            delta += excess_weight * (
                _over(on_a + margin[a] * np.sqrt(max(variance_a, 0.0)), limit)
                + _over(on_b + margin[b] * np.sqrt(max(variance_b, 0.0)), limit)
                - _over(gpu_load[layer, a] + margin[a] * np.sqrt(max(variance[layer, a], 0.0)), limit)
                - _over(gpu_load[layer, b] + margin[b] * np.sqrt(max(variance[layer, b], 0.0)), limit)
            )
        elif excess_weight != 0.0:
            before = _over(gpu_load[layer, a], limit) + _over(gpu_load[layer, b], limit)
            delta += excess_weight * (_over(on_a, limit) + _over(on_b, limit) - before)
        if max_weight != 0.0:
            before = 0.0
            after = max(on_a, on_b)
            for g in range(G):
                before = max(before, gpu_load[layer, g])
                if g != a and g != b:
                    after = max(after, gpu_load[layer, g])
            delta += max_weight * (after - before)
        moved = wider = 0.0
        if spread_weight != 0.0:
            moved = 2.0 * (
                together[layer, b, p]
                - together[layer, a, p]
                + together[layer, a, q]
                - together[layer, b, q]
                + covariance[layer, p, p]
                + covariance[layer, q, q]
                - 2.0 * covariance[layer, p, q]
            )
            wider = np.sqrt(max(variance[layer, 0] + moved, 0.0)) - np.sqrt(max(variance[layer, 0], 0.0))
            delta += spread_weight * (_over(total_spread + wider, spread_free) - _over(total_spread, spread_free))
        if delta > 0.0 and (delta > 30.0 * temperature or next_unit(rng) >= np.exp(-delta / temperature)):
            continue
        if check_allowed and not (allowed[layer, p, b] and allowed[layer, q, a]):
            continue
        x = expert[layer, p]
        y = expert[layer, q]
        if x != y and ((x >= 0 and held[layer, x, b]) or (y >= 0 and held[layer, y, a])):
            continue
        if x >= 0:
            held[layer, x, a] -= 1
            held[layer, x, b] += 1
        if y >= 0:
            held[layer, y, b] -= 1
            held[layer, y, a] += 1
        gpu[layer, p] = b
        gpu[layer, q] = a
        gpu_load[layer, a] = on_a
        gpu_load[layer, b] = on_b
        move_item_cost(forward, backward, place, hop, tiers, node_of_gpu, layer, p, q, a, b)
        if guarded or spread_weight != 0.0:
            if guarded:
                variance[layer, a] = variance_a
                variance[layer, b] = variance_b
            else:
                variance[layer, 0] += moved
                total_spread += wider
            for s in range(S):
                step = covariance[layer, q, s] - covariance[layer, p, s]
                together[layer, a, s] += step
                together[layer, b, s] -= step
        change += delta
    return change
