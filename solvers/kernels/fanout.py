"""Annealing on whole tokens: swaps and re-copies of one layer, priced by rerouting the tokens that use the experts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from placement.kernels.replay import FAIR, SAME_NODE, choose_copy
from solvers.kernels.random import State, next_below, next_unit

__all__ = ["LayerModel", "LayerState", "anneal_layer", "expert_share", "route_all"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]


class LayerState(NamedTuple):
    """What the search changes in place; M copies at most, n tokens."""

    table: Ints  # (S,) expert of each slot, -1 empty
    copies: Ints  # (E, M) GPUs of each expert's copies, ascending
    counts: Ints  # (E,) copies of each expert
    held: Ints  # (E, G) whether the expert has a copy on the GPU
    used: Ints  # (n, K) GPU that serves each assignment, -1 not yet routed
    on_gpu: Ints  # (n, G) assignments of each token on each GPU
    on_node: Ints  # (n, N)
    gpu_load: Floats  # (G,) relative to the fair share
    window_load: Floats  # (G, W) deviations of the GPU's load in the profile's windows; W = 0 where they don't count
    variance: Floats  # (G,) squares of window_load, summed over windows; without a margin their total, (1,)
    share: Floats  # (M,) room for an expert's shares


class LayerModel(NamedTuple):
    """What stays: the layer's tokens, its loads, the topology and the constraints."""

    start: Ints  # (E+1,) where each expert's assignments start in token and place
    token: Ints
    place: Ints  # column of the assignment in the token's top-k
    rows: Ints  # (n,)
    home: Ints  # (n,) home rank
    load: Floats  # (E,)
    deviations: Floats  # (E, W) of the expert's load in the profile's windows
    homes: Floats  # (E or 1, G) share of the expert's tokens by home rank
    fair: Floats  # (G,)
    policy: int
    node_of_gpu: Ints  # (G,)
    gpu_cost: Floats  # (G, G)
    node_cost: Floats  # (G, N)
    distinct: bool  # one message per GPU or node, not per assignment
    layer: int
    lock: Ints  # (E,) 1 stays on its node, 2 stays where it is
    allowed: Bools  # (E, G)
    usable: Bools  # (S,)


@numba.njit(nogil=True, cache=True)
def expert_share(gpus: Ints, count: int, policy: int, homes: Floats, node_of_gpu: Ints, share: Floats) -> None:
    """Fill ``share[c]``, the expected share of an expert's tokens that copy c serves (as `placement.cost.copy_share`).

    Parameters
    ----------
    gpus : (>= count,) integers
    homes : (G,) float64
        Share of the expert's tokens by home GPU.
    """
    G = len(homes)
    for c in range(count):
        share[c] = 0.0
    far = 1.0
    if policy != FAIR:
        far = 0.0
        for h in range(G):
            near = 0
            own = -1
            for c in range(count):
                if gpus[c] == h:
                    own = c
                elif policy == SAME_NODE and node_of_gpu[gpus[c]] == node_of_gpu[h]:
                    near += 1
            if own >= 0:
                share[own] += homes[h]
            elif near:
                for c in range(count):
                    if node_of_gpu[gpus[c]] == node_of_gpu[h]:
                        share[c] += homes[h] / near
            else:
                far += homes[h]
    for c in range(count):
        share[c] += far / count


@numba.njit(nogil=True, cache=True)
def _add_load(e: int, sign: float, state: LayerState, model: LayerModel) -> None:
    copies, counts, gpu_load, share = state.copies, state.counts, state.gpu_load, state.share
    load, deviations, homes, fair = model.load, model.deviations, model.homes, model.fair
    window_load, variance = state.window_load, state.variance
    expert_share(copies[e], counts[e], model.policy, homes[min(e, len(homes) - 1)], model.node_of_gpu, share)
    for c in range(counts[e]):
        g = copies[e, c]
        part = sign * share[c] / fair[g]
        v = g if len(variance) > 1 else 0
        gpu_load[g] += part * load[e]
        for w in range(window_load.shape[1]):
            before = window_load[g, w]
            after = before + part * deviations[e, w]
            window_load[g, w] = after
            variance[v] += after * after - before * before


@numba.njit(nogil=True, cache=True)
def _route(e: int, state: LayerState, model: LayerModel) -> float:
    """Send the tokens of expert e to the copies it has now; return the change of the message cost."""
    # Unpacked in one go: of fields taken by name, numba counts the references here, 2 % of a trial's time.
    _, copies, counts, _, used, on_gpu, on_node, _, _, _, _ = state
    start, token, place, rows, home, _, _, _, _, policy, node_of_gpu, gpu_cost, node_cost, distinct, layer, _, _, _ = (
        model
    )
    anchor = np.empty(1, np.int64)
    gpus = copies[e]
    only = gpus[0]
    change = 0.0
    for i in range(start[e], start[e + 1]):
        t = token[i]
        if counts[e] == 1:
            new = only
        else:
            anchor[0] = home[t]
            new = choose_copy(gpus, counts[e], anchor, 1, policy, node_of_gpu, rows[t], layer, e)
        old = used[t, place[i]]
        if new == old:
            continue
        used[t, place[i]] = new
        if not distinct:
            change += gpu_cost[home[t], new] - (gpu_cost[home[t], old] if old >= 0 else 0.0)
            continue
        if old >= 0:
            on_gpu[t, old] -= 1
            if on_gpu[t, old] == 0:
                change -= gpu_cost[home[t], old]
            node = node_of_gpu[old]
            on_node[t, node] -= 1
            if on_node[t, node] == 0:
                change -= node_cost[home[t], node]
        if on_gpu[t, new] == 0:
            change += gpu_cost[home[t], new]
        on_gpu[t, new] += 1
        node = node_of_gpu[new]
        if on_node[t, node] == 0:
            change += node_cost[home[t], node]
        on_node[t, node] += 1
    return change


@numba.njit(nogil=True, cache=True)
def _edit_copies(e: int, remove: int, add: int, state: LayerState, model: LayerModel) -> None:
    """Take a copy of e off GPU `remove` and put one on `add` (-1: none); copies stay in the order of the GPUs."""
    copies, counts, held = state.copies, state.counts, state.held
    _add_load(e, -1.0, state, model)
    n = counts[e]
    if remove >= 0:
        held[e, remove] = 0
        c = 0
        while copies[e, c] != remove:
            c += 1
        for d in range(c, n - 1):
            copies[e, d] = copies[e, d + 1]
        n -= 1
    if add >= 0:
        held[e, add] = 1
        c = n
        while c > 0 and copies[e, c - 1] > add:
            copies[e, c] = copies[e, c - 1]
            c -= 1
        copies[e, c] = add
        n += 1
    counts[e] = n
    _add_load(e, 1.0, state, model)


@numba.njit(nogil=True, cache=True)
def route_all(state: LayerState, model: LayerModel) -> float:
    """Route every token and load every GPU of a fresh state; return the message cost."""
    cost = 0.0
    for e in range(len(state.counts)):
        _add_load(e, 1.0, state, model)
        cost += _route(e, state, model)
    return cost


@numba.njit(nogil=True, cache=True)
def _load_cost(
    state: LayerState,
    cap: float,
    excess_weight: float,
    max_weight: float,
    margin: float,
    spread_weight: float,
    spread_free: float,
) -> float:
    gpu_load, variance = state.gpu_load, state.variance
    largest = 0.0
    excess = 0.0
    for g in range(len(gpu_load)):
        value = gpu_load[g]
        largest = max(largest, value)
        if margin != 0.0:
            value += margin * np.sqrt(max(variance[g], 0.0))
        if value > cap:
            excess += value - cap
    cost = max_weight * largest + excess_weight * excess
    if spread_weight != 0.0 and state.window_load.shape[1]:
        spread = np.sqrt(max(variance[0], 0.0) / len(gpu_load))
        cost += spread_weight * max(spread - spread_free, 0.0)
    return cost


@numba.njit(nogil=True, cache=True)
def anneal_layer(
    state: LayerState,
    model: LayerModel,
    scale: float,
    cap: float,
    excess_weight: float,
    max_weight: float,
    margin: float,
    spread_weight: float,
    spread_free: float,
    per_gpu: int,
    trials: int,
    temperature: float,
    hopeless: float,
    rng: State,
) -> float:
    """Run `trials` trials on one layer.

    Parameters
    ----------
    state : LayerState
        Changed in place.
    model : LayerModel
    scale : float
        Objective per unit of message cost.
    temperature : float
        Negative: accept nothing and return the mean absolute change of the traffic, to find the scale of temperatures.
    margin : float
        Standard errors that are added to a GPU's load before the cap is held against it; 0 with a `spread_weight`.
    spread_weight, spread_free : float
        Cost per unit of the standard error of a GPU's load, as far as it is above `spread_free`. (The objective frees
        the mean over layers; a layer alone can only keep to its part.)
    hopeless : float
        Trials whose load alone costs more than this (and more than the temperature lets pass) are not routed.

    Returns
    -------
    float
        Change of the objective over the accepted trials.
    """
    table, counts, held = state.table, state.counts, state.held
    node_of_gpu, lock, allowed, usable = model.node_of_gpu, model.lock, model.allowed, model.usable
    S, E = len(table), len(counts)
    total = 0.0
    tried = 0
    for _ in range(trials):
        s = next_below(rng, S)
        a = s // per_gpu
        x = table[s]
        if not usable[s] or (x >= 0 and lock[x] == 2):
            continue
        t = -1
        if S > E and next_below(rng, 4) == 0:
            # Turn a spare copy, or an empty slot, into a copy of another expert.
            y = next_below(rng, E)
            b = -1
            if (x >= 0 and counts[x] < 2) or held[y, a] or lock[y] == 1 or not allowed[y, a]:
                continue
        else:
            t = next_below(rng, S)
            b = t // per_gpu
            y = table[t]
            if a == b or x == y or not usable[t] or (y >= 0 and lock[y] == 2):
                continue
            if (x >= 0 and (held[x, b] or not allowed[x, b])) or (y >= 0 and (held[y, a] or not allowed[y, a])):
                continue
            if ((x >= 0 and lock[x]) or (y >= 0 and lock[y])) and node_of_gpu[a] != node_of_gpu[b]:
                continue
        tried += 1
        before = _load_cost(state, cap, excess_weight, max_weight, margin, spread_weight, spread_free)
        if x >= 0:
            _edit_copies(x, a, b, state, model)
        if y >= 0:
            _edit_copies(y, b, a, state, model)
        delta = _load_cost(state, cap, excess_weight, max_weight, margin, spread_weight, spread_free) - before
        priced = delta <= hopeless + 30.0 * max(temperature, 0.0)
        traffic = 0.0
        if priced:
            if x >= 0:
                traffic += _route(x, state, model)
            if y >= 0:
                traffic += _route(y, state, model)
            delta += scale * traffic
        accept = (
            priced
            and temperature >= 0.0
            and (delta <= 0.0 or (delta < 30.0 * temperature and next_unit(rng) < np.exp(-delta / temperature)))
        )
        if accept:
            table[s] = y
            if t >= 0:
                table[t] = x
            total += delta
        else:
            if y >= 0:
                _edit_copies(y, a, b, state, model)
            if x >= 0:
                _edit_copies(x, b, a, state, model)
            if priced:
                if y >= 0:
                    _route(y, state, model)
                if x >= 0:
                    _route(x, state, model)
            if temperature < 0.0:
                total += abs(scale * traffic)
    return total / max(tried, 1) if temperature < 0.0 else total
