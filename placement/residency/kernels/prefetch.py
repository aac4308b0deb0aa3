"""A cache with a buffer that is filled ahead: with what transitions say, or with what a model's router tells early."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from placement.residency.kernels.caches import AGED, bases, fill, offer, raised, settle

__all__ = ["BY_LOAD", "BY_TRANSITIONS", "CACHED", "FETCHED", "KNOWN", "PREFETCHED", "run_prefetch"]

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]
CACHED, PREFETCHED, FETCHED = 0, 1, 2  # where an access finds its expert
BY_TRANSITIONS, BY_LOAD, KNOWN = 0, 1, 2  # what tells the experts of a later layer
LN2 = np.log(2.0)


@numba.njit(nogil=True, cache=True)
def _likely(
    start: Ints, expert: Ints, tokens: Ints, index: int, step_tokens: int, following: Floats, chance: Floats
) -> None:
    """Write how likely each expert of a later layer is to be used by some token of the step.

    ``following[a, b]`` is the probability that a token which uses a here uses b there; a token's expectation is the
    mean over its experts.
    """
    chance[:] = 0.0
    total = 0
    for access in range(start[index], start[index + 1]):
        total += tokens[access]
        chance += tokens[access] * following[expert[access]]
    if total == 0:
        return
    for e in range(len(chance)):
        mean = min(chance[e] / total, 1.0)
        chance[e] = mean if step_tokens == 1 else 1.0 - (1.0 - mean) ** step_tokens


@numba.njit(nogil=True, cache=True)
def run_prefetch(
    start: Ints,
    expert: Ints,
    tokens: Ints,
    step_tokens: Ints,
    group: Ints,
    room: Ints,
    half_life: float,
    value: npt.NDArray[np.float64],
    price: npt.NDArray[np.float64],
    told_by: int,
    transitions: Floats,
    lookahead: int,
    width: int,
    confidence: float,
    kind: npt.NDArray[np.uint8],
    issued: Ints,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Run a cache by aged frequency with a buffer; return what each prefetch fetches, and the access that it serves.

    When a layer's experts are known, those of the layer `lookahead` further are predicted, and up to `width` of them
    that are not in the cache are fetched into the buffer. When that layer is computed, its part of the buffer is
    free again; what was used may stay in the cache, as what was fetched on demand may.

    Parameters
    ----------
    start, expert, tokens : integers
        See `unite`.
    step_tokens : (P,) integers
        Tokens of each step.
    group, room, half_life, value, price
        See `run_cache`.
    told_by : int
        Transitions from the experts that are known; decayed loads, whatever the tokens are; or the model itself.
    transitions : (L - lookahead, E, E) float32
    lookahead, width : int
    confidence : float
        What is less likely than this is not prefetched.
    kind : (A,) uint8
        Set to `CACHED`, `PREFETCHED` or `FETCHED`.
    issued : (P * L + 1,) integers
        Set to where the prefetches that each set issues begin.

    Returns
    -------
    item_of, access_of : (M,) int32
        Experts (``layer * E + expert``), and accesses, -1 where a prefetch serves none.
    """
    layers = len(group)
    experts = len(value) // layers
    sets = len(start) - 1
    base = bases(room)
    heap = np.empty(room.sum(), np.int32)
    size = np.zeros(len(room), np.int64)
    where = np.empty(len(value), np.int32)
    fill(group, room, base, heap, size, where, value)
    event = np.full(len(value), -1, np.int64)  # the prefetch that an item is in the buffer by
    chance = np.zeros(experts, np.float64)
    count = 0
    item_of, access_of = np.empty(1024, np.int32), np.empty(1024, np.int32)
    issued[0] = 0
    for index in range(sets):
        layer, step = index % layers, index // layers
        g = group[layer]
        for access in range(start[index], start[index + 1]):
            item = layer * experts + expert[access]
            kind[access] = FETCHED
            if where[item] >= 0:
                kind[access] = CACHED
            elif event[item] >= 0:
                kind[access] = PREFETCHED
                access_of[event[item]] = access
            alone = value[item] - price[item]
            value[item] = raised(AGED, alone, index, sets, layers, half_life, 0) + price[item]
            if where[item] >= 0:
                settle(heap, base[g], size[g], item, where, value)
        for access in range(start[index], start[index + 1]):
            item = layer * experts + expert[access]
            if where[item] < 0:
                size[g] = offer(heap, base[g], size[g], room[g], item, where, value)
        if layer >= lookahead:
            source = index - lookahead
            for k in range(issued[source], issued[source + 1]):
                event[item_of[k]] = -1
        if layer + lookahead < layers:
            ahead = (layer + lookahead) * experts
            if told_by == BY_TRANSITIONS:
                _likely(start, expert, tokens, index, step_tokens[step], transitions[layer], chance)
            elif told_by == BY_LOAD:
                for e in range(experts):
                    alone = value[ahead + e] - price[ahead + e]
                    chance[e] = 2.0 ** (alone - step / half_life) * LN2 / half_life
            else:
                chance[:] = 0.0
                for access in range(start[index + lookahead], start[index + lookahead + 1]):
                    chance[expert[access]] = tokens[access]
            for _ in range(width):
                best = -1
                for e in range(experts):
                    likely = chance[e] >= confidence and chance[e] > 0.0 and where[ahead + e] < 0
                    if likely and (best < 0 or chance[e] > chance[best]):
                        best = e
                if best < 0:
                    break
                chance[best] = 0.0
                if count == len(item_of):  # nobody knows how many there will be
                    item_of = np.concatenate((item_of, np.empty_like(item_of)))
                    access_of = np.concatenate((access_of, np.empty_like(access_of)))
                item_of[count] = ahead + best
                access_of[count] = -1
                event[ahead + best] = count
                count += 1
        issued[index + 1] = count
    return item_of[:count].copy(), access_of[:count].copy()
