"""A cache that keeps what a policy ranks highest: one compiled loop for every policy that has an order."""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

__all__ = [
    "AGED",
    "BELADY",
    "FIXED",
    "FREQUENCY",
    "RECENCY",
    "bases",
    "fill",
    "offer",
    "raised",
    "run_cache",
    "settle",
]

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]
# What the value of an expert follows from when it is used; a larger one stays.
FIXED, RECENCY, FREQUENCY, AGED, BELADY = 0, 1, 2, 3, 4
NOWHERE: Final = -1


@numba.njit(nogil=True, cache=True, inline="always")
def _less(value: Floats, a: int, b: int) -> bool:
    """Whether item a goes before b does; the larger number goes where values are the same."""
    return value[a] < value[b] or (value[a] == value[b] and a > b)


@numba.njit(nogil=True, cache=True)
def _up(heap: Ints, base: int, place: int, where: Ints, value: Floats) -> None:
    item = heap[base + place]
    while place > 0:
        parent = (place - 1) // 2
        if not _less(value, item, heap[base + parent]):
            break
        heap[base + place] = heap[base + parent]
        where[heap[base + place]] = place
        place = parent
    heap[base + place] = item
    where[item] = place


@numba.njit(nogil=True, cache=True)
def _down(heap: Ints, base: int, size: int, place: int, where: Ints, value: Floats) -> None:
    item = heap[base + place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _less(value, heap[base + child + 1], heap[base + child]):
            child += 1
        if not _less(value, heap[base + child], item):
            break
        heap[base + place] = heap[base + child]
        where[heap[base + place]] = place
        place = child
    heap[base + place] = item
    where[item] = place


@numba.njit(nogil=True, cache=True)
def settle(heap: Ints, base: int, size: int, item: int, where: Ints, value: Floats) -> None:
    """Put an item that stays into its place after its value has changed."""
    _up(heap, base, where[item], where, value)
    _down(heap, base, size, where[item], where, value)


@numba.njit(nogil=True, cache=True)
def offer(heap: Ints, base: int, size: int, room: int, item: int, where: Ints, value: Floats) -> int:
    """Keep an item if there is room, or if it ranks above the lowest one, which goes; return the new size."""
    if size < room:
        heap[base + size] = item
        where[item] = size
        _up(heap, base, size, where, value)
        return size + 1
    if room > 0 and _less(value, heap[base], item):
        where[heap[base]] = NOWHERE
        heap[base] = item
        where[item] = 0
        _down(heap, base, size, 0, where, value)
    return size


@numba.njit(nogil=True, cache=True)
def bases(room: Ints) -> Ints:
    """Return where each cache's part of the heap begins."""
    base = np.zeros(len(room), np.int64)
    for g in range(1, len(room)):
        base[g] = base[g - 1] + room[g - 1]
    return base


@numba.njit(nogil=True, cache=True)
def fill(group: Ints, room: Ints, base: Ints, heap: Ints, size: Ints, where: Ints, value: Floats) -> None:
    """Begin with the experts that rank highest, group by group."""
    experts = len(where) // len(group)
    where[:] = NOWHERE
    size[:] = 0
    for item in range(len(where)):
        g = group[item // experts]
        size[g] = offer(heap, base[g], size[g], room[g], item, where, value)


@numba.njit(nogil=True, cache=True)
def raised(rule: int, old: float, index: int, sets: int, layers: int, half_life: float, following: int) -> float:
    """Return the value of an expert that is used in set number `index`.

    Aged frequency is ``log2(sum over uses of 2 ** (step / half_life))``: the order is that of decayed counts, and the
    value of what is not used need not change. Where counts are the same, the one that was used later stays.
    """
    if rule == RECENCY:
        return float(index)
    if rule == FREQUENCY:
        return float(np.floor(old) + 1.0 + index / (sets + 1.0))
    if rule == AGED:
        now = (index // layers) / half_life
        high, low = (old, now) if old > now else (now, old)
        return float(high + np.log2(1.0 + 2.0 ** (low - high)))
    if rule == BELADY:
        return -float(following)
    return old


@numba.njit(nogil=True, cache=True)
def run_cache(
    start: Ints,
    expert: Ints,
    following: Ints,
    group: Ints,
    room: Ints,
    rule: int,
    half_life: float,
    value: Floats,
    price: Floats,
    hit: npt.NDArray[np.bool_],
) -> None:
    """Run a cache over the sets of a trace: which of the accesses find their expert there.

    All of a set's experts are looked up first; those that are missing pass through a staging buffer, and of what is in
    the cache and what was used, the highest values stay.

    Parameters
    ----------
    start, expert, following : integers
        See `unite` and `next_uses`; `following` is read by Belady's rule alone.
    group : (L,) integers
        The cache of each layer.
    room : (C,) integers
        Slots of each cache.
    rule : int
        What values follow from.
    half_life : float
        In steps, of aged frequency.
    value : (L * E,) float64
        Values in the beginning; changed.
    price : (L * E,) float64
        Of aged frequency: added to what counts alone would say, so that an expert that is dear to fetch stays longer.
    hit : (A,) bool
        Set.
    """
    layers = len(group)
    experts = len(value) // layers
    sets = len(start) - 1
    base = bases(room)
    heap = np.empty(room.sum(), np.int32)
    size = np.zeros(len(room), np.int64)
    where = np.empty(len(value), np.int32)
    fill(group, room, base, heap, size, where, value)
    for index in range(sets):
        layer = index % layers
        g = group[layer]
        for access in range(start[index], start[index + 1]):
            item = layer * experts + expert[access]
            there = where[item] >= 0
            hit[access] = there
            if rule != FIXED:
                later = following[access] if rule == BELADY else 0
                alone = value[item] - price[item]
                value[item] = raised(rule, alone, index, sets, layers, half_life, later) + price[item]
                if there:
                    settle(heap, base[g], size[g], item, where, value)
        if rule != FIXED:
            for access in range(start[index], start[index + 1]):
                if not hit[access]:
                    item = layer * experts + expert[access]
                    size[g] = offer(heap, base[g], size[g], room[g], item, where, value)
