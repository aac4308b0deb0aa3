"""Annealing of one layer: which expert every slot holds, by expected loads and traffic."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from solvers.searching.kernels.random import State, next_below, next_unit
from solvers.survival.rule import Alive, try_exchange, undo_exchange
from traces.support.copying import copy_row, copy_table

__all__ = ["Layer", "anneal_layer", "layer_cost"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FAIR, SAME_GPU, SAME_NODE = 0, 1, 2
BUSIEST = 0.5  # of the moves take a slot of the busiest GPU; chosen by trial
NUDGE = 0.01  # of the price of the largest load, for the mean square: leads over plateaus; chosen by trial


class Layer(NamedTuple):
    """What a layer's arrangements are priced by.

    Attributes
    ----------
    load : (E,) float64
        Shares of the layer's load.
    policy : int
        0 fair, 1 same_gpu, 2 same_node.
    homes : (E, G) float64
        Share of an expert's tokens by their home; rows sum to 1.
    node : (G,) int64
    hop : (G, G) float64
    fair : (G,) float64
        Fair share of each GPU.
    traffic : float
        Price of a hop of all tokens of the layer.
    prices : (4,) float64
        Of the largest load less 1, of the excess above the cap, the cap itself, and of the mean square of loads less 1,
        which only leads the way: it is not part of the cost that `anneal_layer` returns.
    """

    load: Floats
    policy: int
    homes: Floats
    node: Ints
    hop: Floats
    fair: Floats
    traffic: float
    prices: Floats


@numba.njit(nogil=True, cache=True)
def _serve(here: npt.NDArray[np.bool_], layer: Layer, expert: int, share: Floats) -> float:
    """Fill in the share of an expert's tokens on each GPU, (G,); return the mean hop cost of one of them."""
    policy, homes, node, hop = layer.policy, layer.homes[expert], layer.node, layer.hop
    gpus = len(here)
    share[:] = 0.0
    total = 0
    for g in range(gpus):
        total += here[g]
    if total == 0:
        return 0.0
    cost = 0.0
    for h in range(gpus):
        if homes[h] == 0.0:
            continue
        if policy != FAIR and here[h]:
            share[h] += homes[h]
            continue
        near = 0
        if policy == SAME_NODE:
            for g in range(gpus):
                near += here[g] and node[g] == node[h]
        part = homes[h] / (near if near else total)
        for g in range(gpus):
            if here[g] and (near == 0 or node[g] == node[h]):
                share[g] += part
                cost += part * hop[h, g]
    return cost


@numba.njit(nogil=True, cache=True)
def _load_cost(loads: Floats, prices: Floats) -> float:
    """Return what loads cost: prices of the largest one, of the excess above the cap, the cap, and of the square."""
    largest = 0.0
    excess = 0.0
    square = 0.0
    for g in range(len(loads)):
        largest = max(largest, loads[g])
        excess += max(0.0, loads[g] - prices[2])
        square += (loads[g] - 1) ** 2
    return float(prices[0] * (largest - 1) + prices[1] * excess + prices[3] * square / len(loads))


@numba.njit(nogil=True, cache=True)
def layer_cost(slots: Ints, layer: Layer) -> tuple[float, Floats]:
    """Return the cost of a layer and the GPUs' loads, relative to their fair shares."""
    load, fair = layer.load, layer.fair
    gpus = slots.shape[0]
    experts = len(load)
    loads = np.zeros(gpus)
    share = np.zeros(gpus)
    moved = 0.0
    here = np.zeros((experts, gpus), np.bool_)
    for g in range(gpus):
        for c in range(slots.shape[1]):
            if slots[g, c] >= 0:
                here[slots[g, c], g] = True
    for e in range(experts):
        moved += load[e] * _serve(here[e], layer, e, share)
        for g in range(gpus):
            loads[g] += load[e] * share[g] / fair[g]
    return layer.traffic * moved + _load_cost(loads, layer.prices), loads


@numba.njit(nogil=True, cache=True)
def anneal_layer(
    slots: Ints, layer: Layer, alive: Alive, fill: bool, hot: float, cold: float, trials: int, state: State
) -> float:
    """Change `slots` to the best arrangement that is met, and return its cost.

    Parameters
    ----------
    slots : (G, C) int64
        Expert of each slot that may be used, -1 where none is, -2 where the GPU has no such slot. No GPU holds an
        expert twice, and every expert is there.
    layer : Layer
    alive : Alive
        What has to survive, of these slots; changed in place.
    fill : bool
        Whether used slots stay used.
    hot, cold : float
        First and last temperature.
    trials : int
    state : (2,) uint64
        Of the generator.
    """
    load, fair, traffic, prices = layer.load, layer.fair, layer.traffic, layer.prices
    gpus, room = slots.shape
    experts = len(load)
    replicas = np.zeros(experts, np.int64)
    here = np.zeros((experts, gpus), np.bool_)
    for g in range(gpus):
        for c in range(room):
            if slots[g, c] >= 0:
                here[slots[g, c], g] = True
                replicas[slots[g, c]] += 1
    shares = np.zeros((experts, gpus))
    hops = np.zeros(experts)
    loads = np.zeros(gpus)
    moved = 0.0
    for e in range(experts):
        hops[e] = _serve(here[e], layer, e, shares[e])
        moved += load[e] * hops[e]
        for g in range(gpus):
            loads[g] += load[e] * shares[e, g] / fair[g]
    plain = prices.copy()
    plain[3] = 0.0
    cost = traffic * moved + _load_cost(loads, prices)
    best = traffic * moved + _load_cost(loads, plain)
    kept = slots.copy()
    new_x, new_y, changed = np.zeros(gpus), np.zeros(gpus), np.zeros(gpus)
    cooling = (cold / hot) ** (1.0 / max(1, trials - 1))
    heat = hot
    for _ in range(trials):
        heat *= cooling
        a = int(np.argmax(loads)) if next_unit(state) < BUSIEST else next_below(state, gpus)
        i = next_below(state, room)
        x = slots[a, i]
        if x == -2:
            continue
        swap = next_unit(state) < 0.5
        b, j, y = a, i, -1
        if swap:
            b = next_below(state, gpus)
            j = next_below(state, room)
            y = slots[b, j]
            if y == -2 or a == b or x == y or (x >= 0 and here[x, b]) or (y >= 0 and here[y, a]):
                continue
        else:
            if x >= 0 and replicas[x] < 2:
                continue
            y = next_below(state, experts) if fill or next_unit(state) < 0.9 else -1
            if y == x or (y >= 0 and here[y, a]):
                continue
        if alive.least and not try_exchange(x, y, a, b if swap else -1, alive):
            continue
        if x >= 0:
            here[x, a] = False
            if swap:
                here[x, b] = True
        if y >= 0:
            here[y, a] = True
            if swap:
                here[y, b] = False
        for g in range(gpus):
            changed[g] = loads[g]
        hop_x, hop_y = 0.0, 0.0
        after = moved
        if x >= 0:
            hop_x = _serve(here[x], layer, x, new_x)
            after += load[x] * (hop_x - hops[x])
            for g in range(gpus):
                changed[g] += load[x] * (new_x[g] - shares[x, g]) / fair[g]
        if y >= 0:
            hop_y = _serve(here[y], layer, y, new_y)
            after += load[y] * (hop_y - hops[y])
            for g in range(gpus):
                changed[g] += load[y] * (new_y[g] - shares[y, g]) / fair[g]
        found = traffic * after + _load_cost(changed, prices)
        if found <= cost or next_unit(state) < np.exp((cost - found) / heat):
            cost, moved = found, after
            loads, changed = changed, loads
            slots[a, i] = y
            if swap:
                slots[b, j] = x
            else:
                if x >= 0:
                    replicas[x] -= 1
                if y >= 0:
                    replicas[y] += 1
            if x >= 0:
                hops[x] = hop_x
                copy_row(new_x, shares[x])
            if y >= 0:
                hops[y] = hop_y
                copy_row(new_y, shares[y])
            true = traffic * moved + _load_cost(loads, plain)
            if true < best - 1e-12:
                best = true
                copy_table(slots, kept)
        else:
            if alive.least:
                undo_exchange(x, y, a, b if swap else -1, alive)
            if x >= 0:
                here[x, a] = True
                if swap:
                    here[x, b] = False
            if y >= 0:
                here[y, a] = False
                if swap:
                    here[y, b] = True
    copy_table(kept, slots)
    return best
