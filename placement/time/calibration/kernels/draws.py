"""Draws of the named distributions of the tables: how many tokens each expert of the busiest rank gets.

The tables name a power law and not what was run. Their collector draws the popularity of every expert, scales it to the
pairs of a pass, corrects the rounding, and times the busiest rank. The corrections differed over time: see `Rule` of
`placement.time.calibration.distributions`.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from traces.support.copying import copy_row

__all__ = ["draw_busiest"]

Counts = npt.NDArray[np.int64]
LARGEST, SMALLEST, RANKS = 0, 1, 2


@numba.njit(nogil=True, cache=True)
def spread_over_ranks(counts: Counts, ranks: int, amount: int, step: int, cap: int) -> None:
    """Change counts by `step`, one at a time and each rank in turn, at its emptiest (+1) or fullest (-1) expert."""
    width = counts.size // ranks
    while amount > 0:
        moved = False
        for rank in range(ranks):
            chosen = -1
            for e in range(rank * width, (rank + 1) * width):
                possible = counts[e] < cap if step > 0 else counts[e] > 0
                if possible and (chosen < 0 or (counts[e] - counts[chosen]) * step < 0):
                    chosen = e
            if chosen < 0:
                continue
            counts[chosen] += step
            amount -= 1
            moved = True
            if amount == 0:
                return
        if not moved:
            return


@numba.njit(nogil=True, cache=True)
def correct_by_order(counts: Counts, rule: int, missing: int, cap: int) -> None:
    """Bring the sum right along the order of the counts: from the largest (`LARGEST`), else from the smallest."""
    experts = counts.size
    order = np.argsort(-counts, kind="mergesort")
    at = 0
    while missing > 0:
        e = order[at % experts] if rule == LARGEST else order[experts - 1 - at % experts]
        if rule == LARGEST or counts[e] < cap:
            counts[e] += 1
            missing -= 1
        at += 1
    at = 0
    while missing < 0:
        e = order[experts - 1 - at % experts]
        if counts[e] == 0:
            e = np.argmax(counts)
        counts[e] -= 1
        missing += 1
        at += 1


@numba.njit(nogil=True, cache=True)
def draw_experts(
    tokens: int, experts: int, top_k: int, ranks: int, alpha: float, rule: int, rng: np.random.Generator
) -> Counts:
    """Return the tokens of each expert, (E,): one draw."""
    pairs = tokens * top_k
    low, high = (1.0, max(1.0, tokens * 0.8)) if pairs > experts else (0.01, 2.0)
    power = 1.0 - alpha
    popularity = np.empty(experts)
    for e in range(experts):
        mixed = (high**power - low**power) * rng.random() + low**power
        popularity[e] = mixed ** (1.0 / power)
    counts: Counts = np.rint(popularity / popularity.sum() * pairs).astype(np.int64)
    if rule != LARGEST:  # an expert gets a token once
        over = 0
        for e in range(experts):
            over += max(counts[e] - tokens, 0)
            counts[e] = min(counts[e], tokens)
        if rule == RANKS:
            spread_over_ranks(counts, ranks, over, 1, tokens)
        elif over > 0:
            order = np.argsort(-counts, kind="mergesort")
            for e in order[::-1]:  # the smallest is filled up first
                fill = min(over, tokens - counts[e])
                counts[e] += fill
                over -= fill
    missing = pairs - counts.sum()
    if rule == RANKS:
        spread_over_ranks(counts, ranks, abs(missing), 1 if missing > 0 else -1, tokens)
    else:
        correct_by_order(counts, rule, missing, tokens)
    return counts


@numba.njit(nogil=True, cache=True)
def balanced_slots(counts: Counts, slots: int, ranks: int) -> Counts:
    """Return the tokens of each slot after redundancy and balancing, the slowest rank's slots first, (S,)."""
    experts, width = counts.size, slots // ranks
    copies = np.ones(experts, np.int64)
    expert_of = np.arange(slots)
    for slot in range(experts, slots):
        hottest = np.argmax(counts / copies)
        expert_of[slot] = hottest
        copies[hottest] += 1
    share = counts[expert_of] / copies[expert_of]
    load, used, held = np.zeros(ranks), np.zeros(ranks, np.int64), np.empty((ranks, width), np.int64)
    for slot in np.argsort(-share, kind="mergesort"):
        least = -1
        for rank in range(ranks):
            if used[rank] < width and (least < 0 or load[rank] < load[least]):
                least = rank
        held[least, used[least]] = slot
        used[least] += 1
        load[least] += share[slot]
    slowest = np.argmax(load)
    found = np.empty(slots)
    copy_row(share[held[slowest]], found)
    at = width
    for rank in range(ranks):
        if rank != slowest:
            copy_row(share[held[rank]], found[at:])
            at += width
    whole: Counts = np.floor(found).astype(np.int64)
    rest = np.argsort(-(found - whole), kind="mergesort")
    whole[rest[: counts.sum() - whole.sum()]] += 1
    return whole


@numba.njit(nogil=True, cache=True)
def received(counts: Counts, width: int, tokens: int) -> int:
    """Return how many tokens use one of the first `width` slots.

    Slots take tokens in turn, the fullest first: one with c tokens has the next c of them, starting over at the end.
    """
    used = np.zeros(tokens, np.bool_)
    start = 0
    for slot in np.argsort(-counts, kind="mergesort"):
        if slot < width:
            for i in range(counts[slot]):
                used[(start + i) % tokens] = True
        start += counts[slot]
    return int(used.sum())


@numba.njit(nogil=True, cache=True)
def draw_busiest(
    tokens: int,
    experts: int,
    top_k: int,
    ranks: int,
    slots: int,
    alpha: float,
    rule: int,
    balanced: bool,
    draws: int,
    rng: np.random.Generator,
) -> tuple[Counts, Counts]:
    """Return the tokens of each slot of the busiest rank, (draws, C), and the distinct tokens it gets, (draws,)."""
    width = slots // ranks
    held, rows = np.empty((draws, width), np.int64), np.empty(draws, np.int64)
    for d in range(draws):
        counts = draw_experts(tokens, experts, top_k, ranks, alpha, rule, rng)
        if balanced:
            counts = balanced_slots(counts, slots, ranks)
        else:
            busiest = np.argmax(counts.reshape(ranks, width).sum(axis=1))
            first, other = counts[:width].copy(), counts[busiest * width : (busiest + 1) * width].copy()
            copy_row(first, counts[busiest * width :])
            copy_row(other, counts)
        copy_row(counts[:width], held[d])
        rows[d] = received(counts, width, tokens)
    return held, rows
