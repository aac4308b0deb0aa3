"""Balancing the load of one layer, compiled: EPLB's steps with distinct replicas, moves, other numbers of replicas."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from solvers.arrange.kernels import separate_layer
from solvers.methods.eplb.kernels.heap import TOP, heapify, sift_down, sift_up
from solvers.methods.eplb.kernels.rebalance import rebalance_layer
from solvers.methods.load_balance.kernels.relieve import EPSILON, largest_load, relieve
from traces.support.copying import copy_table

__all__ = ["balance_layers"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Table = npt.NDArray[np.int32]

WHOLE: Any = np.int64(1)  # one group on one node. No literal: numba compiles a function once more for each of them
STALLED = 1.005  # times the lower bound: below it, other numbers of replicas are not worth their time; chosen by trial


@numba.njit(nogil=True, cache=True)
def _spread_replicas(load: Floats, most: int, slots: int) -> Ints:
    """Return replicas per expert, (E,): spare slots go one by one to the largest load per replica.

    No expert gets more than `most` replicas.

    No other numbers of replicas in `slots` slots have a smaller largest share.
    """
    replicas = np.ones(len(load), np.int64)
    key = -load
    heap = np.arange(len(load))
    heapify(heap, key, len(load))
    for _ in range(slots - len(load)):
        hottest = heap[0]
        if replicas[hottest] == most:  # so have all: who has, sinks to the bottom
            break
        replicas[hottest] += 1
        key[hottest] = -load[hottest] / replicas[hottest] if replicas[hottest] < most else np.inf
        sift_down(heap, key, len(load), TOP)
    return replicas


@numba.njit(nogil=True, cache=True)
def _pack(load: Floats, replicas: Ints, room: Ints, scale: Floats, table: Table) -> bool:
    """Fill an empty table, heaviest share first, each replica onto the least loaded GPU with room that has none yet.

    Where no such GPU is left, the expert gets fewer replicas. Every expert gets one, as there are no more replicas than
    slots.

    Returns
    -------
    bool
        Whether EPLB, which knows no GPUs that have a replica already, would have packed in the same way.
    """
    gpus = len(room)
    alike = replicas.max() < gpus
    share = load / replicas
    order = np.argsort(-share, kind="mergesort")
    total, key = np.zeros(gpus), np.zeros(gpus)
    filled = np.zeros(gpus, np.int64)
    taken = np.empty(gpus, np.int64)
    heap = np.empty(gpus, np.int64)
    size = 0
    for g in range(gpus):
        if room[g] > 0:
            heap[size] = g
            size += 1
    # EPLB may deal out the replicas of experts with equal shares in another order, so all of them have to be apart.
    tie, last = 0, -1
    tied_replicas = tied_gpus = False
    tied = np.full(gpus, -1, np.int64)
    for e in order:
        number = min(replicas[e], size)
        alike &= number == replicas[e]
        if last < 0 or share[e] != share[last]:
            tie += 1
            tied_replicas = tied_gpus = False
        last = e
        tied_replicas |= replicas[e] > 1
        lightest = np.inf  # of the GPUs that have a replica of e, and room
        for k in range(number):
            g = heap[0]
            alike &= key[g] < lightest
            if number > 1:  # out of the way of the other replicas
                size -= 1
                heap[0] = heap[size]
                sift_down(heap, key, max(size, 1), TOP)
                taken[k] = g
            tied_gpus |= tied[g] == tie
            tied[g] = tie
            table[g, filled[g]] = e
            filled[g] += 1
            total[g] += load[e] / number
            key[g] = total[g] * scale[g]
            if filled[g] < room[g]:
                lightest = min(lightest, key[g])
        if number == 1:
            if filled[heap[0]] == room[heap[0]]:
                size -= 1
                heap[0] = heap[size]
            sift_down(heap, key, max(size, 1), TOP)
        for k in range(number if number > 1 else 0):
            if filled[taken[k]] < room[taken[k]]:
                heap[size] = taken[k]
                sift_up(heap, key, size)
                size += 1
        alike &= not (tied_replicas and tied_gpus)
    return bool(alike)


@numba.njit(nogil=True, cache=True)
def _other_replicas(load: Floats, replicas: Ints, most: int, give: bool) -> bool:
    """Take the replica that is missed least, and give it to the expert with the largest share, or to none.

    Returns
    -------
    bool
        Whether there was such a replica, and such an expert if one was to be given it.
    """
    donor, hottest = -1, -1
    for e in range(len(load)):
        if replicas[e] > 1 and (donor < 0 or load[e] / (replicas[e] - 1) < load[donor] / (replicas[donor] - 1)):
            donor = e
    for e in range(len(load)):
        if (
            e != donor
            and replicas[e] < most
            and (hottest < 0 or load[e] / replicas[e] > load[hottest] / replicas[hottest])
        ):
            hottest = e
    if donor < 0 or (give and hottest < 0):
        return False
    replicas[donor] -= 1
    if give:
        replicas[hottest] += 1
    return True


@numba.njit(nogil=True, cache=True)
def balance_layers(
    load: Floats, room: Ints, scale: Floats, as_eplb: bool, retries: int, moves: int, table: Table
) -> None:
    """Place a run of layers, each on its own, with the least largest load that can be found.

    One loop, rather than one for a layer that another one calls: all of its code would be compiled twice.

    Parameters
    ----------
    load : (L, E) float64
        In no layer all 0.
    room : (G,) int64
        Slots that each GPU may use, the first ones.
    scale : (L, G) float64
        Relative load of a GPU per unit of load.
    as_eplb : bool
        Whether EPLB applies (the same room and scale everywhere), so that the result has to be as good.
    retries : int
        Other numbers of replicas to try where the load stays above its lower bound.
    moves : int
        Most moves of each try.
    table : (L, G, C) int32
        The result: experts by GPU, -1 for an empty slot. No GPU holds an expert twice.
    """
    gpus, slots = len(room), room.sum()
    for layer in range(len(load)):
        loads, scales, found = load[layer], scale[layer], table[layer]
        replicas = _spread_replicas(loads, gpus, slots)
        floor = max(1.0, (loads / replicas).max() * scales.min()) * (1 + EPSILON)
        found[:] = -1
        weight = scales / scales[0]  # exactly 1 for equal GPUs: no rounding that EPLB does not have
        alike = _pack(loads, replicas, room, weight, found)
        if as_eplb and not alike:
            row = np.empty(slots, np.int64)
            rebalance_layer(loads, slots, WHOLE, WHOLE, gpus, row)
            packed = row.astype(np.int32).reshape(found.shape)
            separate_layer(loads, packed)
            if largest_load(loads, packed, scales) < largest_load(loads, found, scales):
                copy_table(packed, found)
        best = relieve(loads, found, room, scales, floor, moves)
        give, failed, other = True, 0, np.empty_like(found)
        for _ in range(retries):
            if best <= floor * STALLED or failed == 2:
                break
            changed = np.zeros(len(loads), np.int64)
            for e in found.ravel():
                if e >= 0:
                    changed[e] += 1
            value = np.inf
            if _other_replicas(loads, changed, gpus, give):
                other[:] = -1
                _pack(loads, changed, room, weight, other)
                value = relieve(loads, other, room, scales, floor, moves)
            if value < best * (1 - EPSILON):
                best, failed = value, 0
                copy_table(other, found)
            else:
                give, failed = not give, failed + 1
