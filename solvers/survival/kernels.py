"""Copies put where they are missing, compiled: augmenting paths from an expert to a slot that can be spared.

The copies that experts need to survive are a flow from experts to failure domains, at most one unit from an expert to a
domain, so that an expert that lacks one can get it along an augmenting path if anything can be done at all (Ford and
Fulkerson). Empty slots and copies that nobody needs are where paths end.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from solvers.survival.rule import Alive, shift

__all__ = ["deal_layer", "repair_layer", "restore_layer", "spread_layer"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]
Table = npt.NDArray[np.int32]
NONE: Any = np.int64(-1)  # no GPU; no literal, for which numba would compile what takes it once more


@numba.njit(nogil=True, cache=True)
def _spared(d: int, table: Table, room: Ints, load: Floats, alive: Alive) -> tuple[int, int, float]:
    """Return GPU, slot and load of what a domain spares most easily: an empty slot, or a copy; -1 if nothing."""
    held, spread, short = alive.held, alive.spread, alive.short
    gpu, slot, least, calm = -1, -1, np.inf, np.inf
    for g in range(len(table)):
        if alive.domain[g] != d:
            continue
        used, total = 0, 0.0
        for c in range(table.shape[1]):
            if table[g, c] >= 0:
                used += 1
                total += load[table[g, c]] / max(1, spread[table[g, c]])
        for c in range(table.shape[1]):
            h = table[g, c]
            if h < 0:
                cost = 0.0
                if used >= room[g]:
                    continue
            else:
                cost = load[h] / spread[h]
                if held[h, d] < 2 and spread[h] <= alive.least:
                    if alive.most == 0 or spread[h] < 2:
                        continue
                    other = -1
                    for n in range(held.shape[1]):
                        if n != d and held[h, n]:
                            other = n
                    if short[other] >= alive.most:
                        continue
            if cost < least or (cost == least and total < calm):
                gpu, slot, least, calm = g, c, cost, total
    return gpu, slot, least


@numba.njit(nogil=True, cache=True)
def _augment(e: int, table: Table, room: Ints, load: Floats, alive: Alive) -> bool:
    """Give expert e a copy in one more domain; whether that was possible."""
    held, spread, domain = alive.held, alive.spread, alive.domain
    domains, gpus, slots = held.shape[1], len(table), table.shape[1]
    parent = np.full(domains, -2, np.int64)  # -2: not reached, -1: e itself goes there
    via_gpu, via_slot = np.full(domains, -1, np.int64), np.full(domains, -1, np.int64)
    queue = np.zeros(domains, np.int64)
    end = 0
    last, gpu, slot, least = -1, -1, -1, np.inf
    for d in range(domains):
        if held[e, d] == 0:
            parent[d] = -1
            queue[end] = d
            end += 1
            g, c, cost = _spared(d, table, room, load, alive)
            if g >= 0 and cost < least:
                last, gpu, slot, least = d, g, c, cost
    begin = 0
    while last < 0 and begin < end:
        d = queue[begin]
        begin += 1
        for g in range(gpus):
            if domain[g] != d:
                continue
            for c in range(slots):
                f = table[g, c]
                if f < 0 or last >= 0:
                    continue
                for n in range(domains):
                    if parent[n] != -2 or held[f, n]:
                        continue
                    if alive.most and spread[f] < alive.least and alive.short[n] >= alive.most:
                        continue
                    parent[n], via_gpu[n], via_slot[n] = d, g, c
                    queue[end] = n
                    end += 1
                    last_gpu, last_slot, _ = _spared(n, table, room, load, alive)
                    if last_gpu >= 0:
                        last, gpu, slot = n, last_gpu, last_slot
                        break
    if last < 0:
        return False
    if table[gpu, slot] >= 0:
        shift(table[gpu, slot], gpu, NONE, alive)
    while parent[last] >= 0:
        g, c = via_gpu[last], via_slot[last]
        table[gpu, slot] = table[g, c]
        shift(table[g, c], g, gpu, alive)
        gpu, slot, last = g, c, parent[last]
    table[gpu, slot] = e
    shift(e, NONE, gpu, alive)
    return True


@numba.njit(nogil=True, cache=True)
def repair_layer(table: Table, room: Ints, load: Floats, alive: Alive) -> bool:
    """Put copies where they are missing, the busiest experts first, in place of what is needed least.

    Parameters
    ----------
    table : (G, C) int32
        Experts by GPU, each somewhere; changed in place.
    room : (G,) integers
        Slots of each GPU that may be used.
    load : (E,) float64
    alive : Alive
        Of the table; kept up to date.

    Returns
    -------
    bool
        Whether the rule is kept now. Without a loss that is allowed, it is if any map of these slots keeps it.
    """
    held, spread, short = alive.held, alive.spread, alive.short
    while alive.over[0]:
        chosen = -1
        for e in range(len(load)):
            if spread[e] >= alive.least or (chosen >= 0 and load[e] <= load[chosen]):
                continue
            over = alive.least > 2
            for d in range(held.shape[1]):
                over = over or (held[e, d] > 0 and short[d] > alive.most)
            if over:
                chosen = e
        if chosen < 0 or not _augment(chosen, table, room, load, alive):
            return False
    return True


@numba.njit(nogil=True, cache=True)
def deal_layer(order: Ints, alone: Ints, table: Table, room: Ints, load: Floats, alive: Alive) -> bool:
    """Deal out a layer anew: the last experts once each, as many as may be lost with a domain, all others twice.

    Parameters
    ----------
    order : (E,) integers
        Experts, those to survive first.
    alone : (D,) integers
        Experts that are in a single domain, by domain; no more of them than may be lost.
    table : (G, C) int32
        Empty; filled in place.
    room, load
        See `repair_layer`.
    alive : Alive
        Of the empty table.

    Returns
    -------
    bool
        Whether all found a place.
    """
    last = len(order)
    for d in range(len(alone)):
        for _ in range(alone[d]):
            last -= 1
            gpu, slot, _ = _spared(d, table, room, load, alive)
            if gpu < 0:
                return False
            table[gpu, slot] = order[last]
            shift(order[last], NONE, gpu, alive)
    for i in range(last):
        for _ in range(2):
            if not _augment(order[i], table, room, load, alive):
                return False
    return bool(alive.over[0] == 0)


@numba.njit(nogil=True, cache=True)
def spread_layer(
    order: Ints, copies: Ints, alone: Ints, table: Table, room: Ints, load: Floats, fair: Floats, alive: Alive
) -> bool:
    """Deal out copies by their load, each to the GPU that is lightest then, in a further domain while one is needed.

    Parameters
    ----------
    order : (E,) integers
        Experts by the load of a copy, falling.
    copies : (E,) integers
        Of each expert.
    alone : (D,) integers
        Slots of each domain that are for experts with too few copies to survive; as many as there are of these.
    table : (G, C) int32
        Empty; filled in place.
    room : (G,) integers
    load : (E,) float64
    fair : (G,) float64
        Fair share of each GPU.
    alive : Alive
        Of the empty table.

    Returns
    -------
    bool
        Whether all experts are there and the rule is kept; no GPU holds an expert twice.
    """
    gpus = len(room)
    used, total = np.zeros(gpus, np.int64), np.zeros(gpus)
    left = -alone
    for g in range(gpus):
        left[alive.domain[g]] += room[g]
    here = np.zeros((len(load), gpus), np.bool_)
    waiting = 0  # experts that still need several domains
    for e in order:
        waiting += copies[e] >= alive.least
    for e in order:
        share = load[e] / copies[e]
        single = copies[e] < alive.least
        waiting -= not single
        for _ in range(copies[e]):
            gpu, least, urgent = -1, np.inf, False
            for g in range(gpus):
                d = alive.domain[g]
                after = (total[g] + share) / fair[g]
                # A domain with more room than experts that wait could not be filled later: an expert goes there once.
                late = not single and left[d] > waiting
                if used[g] >= room[g] or here[e, g] or (after >= least and late <= urgent) or late < urgent:
                    continue
                if alive.held[e, d] and alive.spread[e] < alive.least:
                    continue
                if (alive.short[d] >= alone[d]) if single else (left[d] <= 0):
                    continue
                gpu, least, urgent = g, after, late
            if gpu < 0:
                continue
            for c in range(table.shape[1]):
                if table[gpu, c] < 0:
                    table[gpu, c] = e
                    break
            used[gpu] += 1
            total[gpu] += share
            here[e, gpu] = True
            left[alive.domain[gpu]] -= not single
            shift(e, NONE, gpu, alive)
    for e in order:
        while alive.spread[e] == 0 or (copies[e] >= alive.least and alive.spread[e] < alive.least):
            if not _augment(e, table, room, load, alive):
                return False
    return bool(alive.over[0] == 0)


@numba.njit(nogil=True, cache=True)
def restore_layer(lost: Ints, table: Table, room: Ints, load: Floats, alive: Alive) -> bool:
    """Put experts that are nowhere somewhere, in the given order, in empty slots or in place of further copies.

    Parameters
    ----------
    lost : (n,) int64
    table, room, load
        See `repair_layer`.
    alive : Alive
        Of the table, with every GPU a domain and one domain enough.

    Returns
    -------
    bool
        Whether all found a place.
    """
    found = True
    for e in lost:
        found = found and _augment(e, table, room, load, alive)
    return found
