"""Arranging the slots of a layer, compiled: second replicas off a GPU, and balance with few moves."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["balance_layer", "separate_layer"]

Floats = npt.NDArray[np.float64]
Table = npt.NDArray[np.int32]


@numba.njit(nogil=True, cache=True)
def _index(table: Table, gpu: int, expert: int, end: int) -> int:
    """Return the first of a GPU's slots before `end` that holds the expert (or is empty, for -1); -1 if none does."""
    for c in range(end):
        if table[gpu, c] == expert:
            return c
    return -1


@numba.njit(nogil=True, cache=True)
def separate_layer(load: Floats, table: Table) -> None:
    """Exchange each second replica of an expert on a GPU with the slot that leaves the smaller largest load of the two.

    Parameters
    ----------
    load : (E,) float64
        Load of each expert; a replica carries an equal part.
    table : (G, C) int32
        Experts by GPU, -1 for an empty slot; changed in place. A replica for which no GPU is left becomes an empty
        slot.
    """
    gpus, per_gpu = table.shape
    replicas = np.zeros(len(load), np.int64)
    for expert in table.ravel():
        if expert >= 0:
            replicas[expert] += 1
    weight, total = np.empty((gpus, per_gpu)), np.empty(gpus)
    for gpu in range(gpus):
        for c in range(per_gpu):
            expert = table[gpu, c]
            if expert < 0 or _index(table, gpu, expert, c) < 0:
                continue
            for g in range(gpus):
                total[g] = 0.0
                for d in range(per_gpu):
                    weight[g, d] = load[table[g, d]] / replicas[table[g, d]] if table[g, d] >= 0 else 0.0
                    total[g] += weight[g, d]
            least, other, slot = np.inf, -1, -1
            for g in range(gpus):
                if _index(table, g, expert, per_gpu) >= 0:
                    continue
                for d in range(per_gpu):
                    step = weight[gpu, c] - weight[g, d]
                    worst = max(total[gpu] - step, total[g] + step)
                    if worst < least and _index(table, gpu, table[g, d], per_gpu) < 0:
                        least, other, slot = worst, g, d
            if other < 0:
                table[gpu, c] = -1
                replicas[expert] -= 1
            else:
                table[gpu, c], table[other, slot] = table[other, slot], table[gpu, c]


@numba.njit(nogil=True, cache=True, inline="always")
def _steep(value: float) -> float:
    square = value * value
    fourth = square * square
    return fourth * fourth


@numba.njit(nogil=True, cache=True)
def balance_layer(slots: Table, load: Floats, share: Floats, capacity: npt.NDArray[np.int64], most: int) -> Table:
    """Balance a layer by the change that gains most per move, again and again.

    A change swaps an expert of the busiest GPU for another's (two moves), or gives it a replica in an empty slot or in
    place of an expert that has others (one move). What falls is the sum over GPUs of ``(load / fair load) ** 8``, which
    follows the largest and still sees the next ones.

    Parameters
    ----------
    slots : (G, C) int32
        Experts of each GPU, each once at most; -1 is empty. Changed in place.
    load : (E,) float64
        Share of the layer's load; replicas have equal parts of it.
    share : (G,) float64
        Fair share of each GPU.
    capacity : (G,) int64
        Slots that each GPU may use.
    most : int
        Changes at most.

    Returns
    -------
    (D, G, C) int32
        The slots after each change.
    """
    G, C = slots.shape
    E = len(load)
    copies = np.zeros(E, np.int64)
    on = np.zeros((E, G), np.bool_)
    filled = np.zeros(G, np.int64)
    for gpu in range(G):
        for slot in range(C):
            if slots[gpu, slot] >= 0:
                copies[slots[gpu, slot]] += 1
                on[slots[gpu, slot], gpu] = True
                filled[gpu] += 1
    history = np.empty((most, G, C), np.int32)
    made = 0
    busy = np.zeros(G)
    while made < most:
        busy[:] = 0.0
        for gpu in range(G):
            for slot in range(C):
                if slots[gpu, slot] >= 0:
                    busy[gpu] += load[slots[gpu, slot]] / copies[slots[gpu, slot]]
        top = 0
        for gpu in range(G):
            if busy[gpu] / share[gpu] > busy[top] / share[top]:
                top = gpu
        best, what, best_gpu, best_slot, best_own = 0.0, 0, -1, -1, -1
        for own in range(C):
            x = slots[top, own]
            if x < 0:
                continue
            part = load[x] / copies[x]
            less = part - load[x] / (copies[x] + 1)
            shrunk = 0.0  # what a further replica of x gains on those that have one
            for gpu in range(G):
                if on[x, gpu]:
                    shrunk += _steep(busy[gpu] / share[gpu]) - _steep((busy[gpu] - less) / share[gpu])
            for gpu in range(G):
                if gpu == top or on[x, gpu]:
                    continue
                here = _steep(busy[gpu] / share[gpu])
                for slot in range(C):
                    y = slots[gpu, slot]
                    if y < 0:
                        if filled[gpu] < capacity[gpu]:
                            gain = shrunk + here - _steep((busy[gpu] + part - less) / share[gpu])
                            if gain > best:
                                best, what, best_gpu, best_slot, best_own = gain, 1, gpu, slot, own
                        continue
                    other = load[y] / copies[y]
                    if not on[y, top]:
                        gain = _steep(busy[top] / share[top]) + here
                        gain -= _steep((busy[top] - part + other) / share[top])
                        gain -= _steep((busy[gpu] + part - other) / share[gpu])
                        if gain / 2 > best:
                            best, what, best_gpu, best_slot, best_own = gain / 2, 2, gpu, slot, own
                    if copies[y] > 1:
                        more = load[y] / (copies[y] - 1) - other
                        gain = shrunk + here - _steep((busy[gpu] - other + part - less) / share[gpu])
                        for third in range(G):
                            if third != gpu and on[y, third]:
                                now = busy[third] - (less if on[x, third] else 0.0)
                                gain += _steep(now / share[third]) - _steep((now + more) / share[third])
                        if gain > best:
                            best, what, best_gpu, best_slot, best_own = gain, 1, gpu, slot, own
        if what == 0 or best <= 1e-9:
            break
        x, y = slots[top, best_own], slots[best_gpu, best_slot]
        slots[best_gpu, best_slot] = x
        on[x, best_gpu] = True
        if y >= 0:
            on[y, best_gpu] = False
        if what == 2:
            slots[top, best_own] = y
            on[x, top] = False
            on[y, top] = True
        else:
            copies[x] += 1
            if y >= 0:
                copies[y] -= 1
            else:
                filled[best_gpu] += 1
        history[made] = slots
        made += 1
    return history[:made]
