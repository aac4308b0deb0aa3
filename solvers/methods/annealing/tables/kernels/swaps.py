"""Annealing by swaps of items, priced by tables.

An *item* is what a slot holds: an expert, one replica of it, or nothing. Each GPU has room for the same number of
items, so all arrangements are reached by swapping items between GPUs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from solvers.methods.annealing.tables.kernels.places import Pairs, move_item_cost
from solvers.searching.kernels.random import State, next_below, next_unit
from solvers.survival.rule import Alive, alive_in, try_exchange

__all__ = ["Items", "SwapState", "Weights", "anneal"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


class Items(NamedTuple):
    """What stays: the items, what they cost beside each other, and where they may be."""

    pairs: Pairs
    load: Floats  # (L, S, G) or (L, S, 1) load of each item relative to the fair share of each GPU
    cap: Floats  # (L,) load cap of each layer; infinite for none
    covariance: Floats  # (L, S, S) of the items' loads, relative to the mean fair share; or (0, S, S)
    # (G,) added to the load that the cap is held against, per unit of the square root of a GPU's variance; (0,) if the
    # cap is held against the load alone. Not with a weight of the spread.
    margin: Floats
    expert: Ints  # (L, S) expert of each item if it has several replicas that must be on different GPUs, else -1
    lock: Ints  # (L, S) 0 free, 1 stays on its node, 2 stays on its GPU
    allowed: npt.NDArray[np.bool_]  # (L, S, G), looked at if `check_allowed`
    check_allowed: bool
    who: Ints  # (L, S) expert of each item, -1 for nothing


class Weights(NamedTuple):
    """What loads cost."""

    excess: float  # per unit of load above the cap
    largest: float  # per unit of a layer's largest load
    spread: float  # per unit of the sum over layers of the square root of `variance`
    spread_free: float  # as far as it is above this


class SwapState(NamedTuple):
    """What a run changes in place."""

    gpu: Ints  # (L, S) GPU of each item
    place: Floats  # (L, G, S) cost of each item on each GPU, or (L, G + N, S) on each GPU and node
    load: Floats  # (L, G)
    held: Ints  # (L, E, G) replicas of an expert on a GPU; (1, 1, 1) where none can collide
    together: Floats  # (L, G, S) covariance of each item with the items on each GPU; with a margin or a spread weight
    variance: Floats  # (L, G) of the GPUs' loads with a margin, or its sum over GPUs (L, 1)
    alive: Alive  # what has to survive, of all layers


@numba.njit(nogil=True, cache=True, inline="always")
def _over(value: float, cap: float) -> float:
    return value - cap if value > cap else 0.0


@numba.njit(nogil=True, cache=True)
def anneal(items: Items, weights: Weights, state: SwapState, trials: int, temperature: float, rng: State) -> float:
    """Run `trials` swap trials at one temperature.

    Parameters
    ----------
    items : Items
    weights : Weights
    state : SwapState
        Changed in place.
    trials : int
    temperature : float
    rng : (2,) uint64

    Returns
    -------
    float
        The change of the objective over all accepted swaps.
    """
    # By name and by array: handing on the whole tuples costs more than most trials.
    pairs, load, cap, covariance, margin = items.pairs, items.load, items.cap, items.covariance, items.margin
    expert, lock, allowed, check_allowed = items.expert, items.lock, items.allowed, items.check_allowed
    hop, node_of_gpu, who = pairs.hop, pairs.node_of_gpu, items.who
    excess_weight, max_weight, spread_weight, spread_free = weights
    gpu, place, gpu_load, held, together, variance, alive = state
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
        if alive.least and not try_exchange(who[layer, p], who[layer, q], a, b, alive_in(alive, layer)):
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
        move_item_cost(pairs, place, layer, p, q, a, b)
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
