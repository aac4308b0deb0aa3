"""Loops over slots, arrivals and links: what keeps its slot, whom an expert is sent from, and how fast."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["choose_sources", "fair_seconds", "settle_slots"]

Table = npt.NDArray[np.integer[Any]]


@numba.njit(nogil=True, cache=True)
def settle_slots(before: Table, after: Table) -> npt.NDArray[np.int32]:
    """Put the experts of each GPU into the slots where they were.

    Parameters
    ----------
    before : (L, G, B) integers
        Experts in the slots of each GPU; -1 is empty.
    after : (L, G, C) integers
        Experts that each GPU is to hold, in any order.

    Returns
    -------
    (L, G, C) int32
        The same experts: as many as can keep their slot. The others fill slots that were empty first.
    """
    L, G, C = after.shape
    common = min(before.shape[2], C)
    found = np.full((L, G, C), -1, np.int32)
    for layer in range(L):
        for gpu in range(G):
            placed = np.zeros(C, np.bool_)
            for slot in range(common):
                expert = before[layer, gpu, slot]
                if expert < 0:
                    continue
                for item in range(C):
                    if not placed[item] and after[layer, gpu, item] == expert:
                        placed[item] = True
                        found[layer, gpu, slot] = expert
                        break
            for wanted in range(2):  # slots that were empty, then the others
                slot = 0
                for item in range(C):
                    if placed[item] or after[layer, gpu, item] < 0:
                        continue
                    while slot < C and not (
                        found[layer, gpu, slot] < 0
                        and (wanted == 1 or (slot < common and before[layer, gpu, slot] < 0) or slot >= common)
                    ):
                        slot += 1
                    if slot == C:
                        break
                    found[layer, gpu, slot] = after[layer, gpu, item]
                    placed[item] = True
    return found


@numba.njit(nogil=True, cache=True)
def choose_sources(held: npt.NDArray[np.bool_], arrivals: Table, node_of_gpu: Table) -> npt.NDArray[np.int64]:
    """Choose whom each expert is sent from: the holder on the same node that has sent least so far, else any such.

    What was sent is counted within a layer, as layers are exchanged one after the other.

    Parameters
    ----------
    held : (L, E, G) bool
        Who holds which expert before.
    arrivals : (M, 3) integers
        Layer row, expert, GPU; by layer.
    node_of_gpu : (G,) integers

    Returns
    -------
    (M,) int64
        GPUs; -1 where nobody holds the expert.
    """
    found = np.full(len(arrivals), -1, np.int64)
    sent = np.zeros((2, held.shape[2]), np.int64)  # inside the node, and to other nodes
    for row in range(len(arrivals)):
        layer, expert, gpu = arrivals[row]
        if row and layer != arrivals[row - 1, 0]:
            sent[:] = 0
        for tier in range(2):
            best = -1
            for other in range(held.shape[2]):
                if not held[layer, expert, other] or (node_of_gpu[other] == node_of_gpu[gpu]) != (tier == 0):
                    continue
                if best < 0 or sent[tier, other] < sent[tier, best]:
                    best = other
            if best >= 0:
                sent[tier, best] += 1
                found[row] = best
                break
    return found


@numba.njit(nogil=True, cache=True)
def fair_seconds(
    flows: npt.NDArray[np.int64],
    gigabytes: npt.NDArray[np.float64],
    ports: npt.NDArray[np.float64],
    most: npt.NDArray[np.float64],
) -> float:
    """Return when the last of some flows is done that begin together and share ports max-min fairly.

    Parameters
    ----------
    flows : (F, 2) int64
        Ports that each flow uses.
    gigabytes : (F,) float64
    ports : (P,) float64
        GB/s of each port.
    most : (F,) float64
        GB/s that each flow reaches alone.
    """
    left = gigabytes.copy()
    count = len(left)
    now = 0.0
    rate = np.empty(count)
    while True:
        alive = left > 1e-12
        if not alive.any():
            return now
        free, users = ports.copy(), np.zeros(len(ports), np.int64)
        for flow in range(count):
            rate[flow] = 0.0
            if alive[flow]:
                users[flows[flow, 0]] += 1
                users[flows[flow, 1]] += 1
        filling = alive.copy()
        level = 0.0  # the rate of every flow that is not held back yet
        while filling.any():
            step = np.inf
            for port in range(len(ports)):
                if users[port]:
                    step = min(step, free[port] / users[port])
            for flow in range(count):
                if filling[flow]:
                    step = min(step, most[flow] - level)
            level += step
            for port in range(len(ports)):
                free[port] -= step * users[port]
            for flow in range(count):
                if not filling[flow]:
                    continue
                a, b = flows[flow]
                if free[a] <= 1e-9 * ports[a] or free[b] <= 1e-9 * ports[b] or level >= most[flow] * (1 - 1e-12):
                    filling[flow] = False
                    rate[flow] = level
            for port in range(len(ports)):
                users[port] = 0
            for flow in range(count):
                if filling[flow]:
                    users[flows[flow, 0]] += 1
                    users[flows[flow, 1]] += 1
        step = np.inf
        for flow in range(count):
            if alive[flow]:
                step = min(step, left[flow] / rate[flow])
        now += step
        for flow in range(count):
            if alive[flow]:
                left[flow] -= step * rate[flow]
