"""Compiled loops of the generator.

Every random number is a hash of (seed, row, layer, draw), so that a token does not depend on the batch that it is in
(SplitMix64; Steele, Lea and Flood, OOPSLA 2014, section 4).
"""
# numba's decorators are untyped.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from traces.support.mixing import mix

__all__ = ["draw_experts", "draw_topics", "hash_rows"]

IntArray = npt.NDArray[np.integer[Any]]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
STRIDE = np.uint64(0xBF58476D1CE4E5B9)  # between the layers of a token
S32, S11 = np.uint64(32), np.uint64(11)
LOW = np.uint64(0xFFFFFFFF)
ONE = np.uint64(1)
UNIT = 1.0 / 9007199254740992.0  # 2^-53
REJECTIONS = 64  # after as many in one layer, the slower draw that never rejects takes over


@numba.njit(nogil=True, cache=True)
def hash_rows(rows: npt.NDArray[np.int64], key: np.uint64, out: npt.NDArray[np.uint64]) -> None:
    """Write a hash of each row number and `key` to `out`."""
    for t in range(len(rows)):
        out[t] = mix(key + (np.uint64(rows[t]) + ONE) * GOLDEN)


@numba.njit(nogil=True, cache=True)
def draw_topics(
    rows: npt.NDArray[np.int64],
    key: np.uint64,
    tokens_per_sequence: int,
    topics: int,
    topics_per_sequence: int,
    drift: float,
    num_tokens: int,
    out: npt.NDArray[np.int64],
) -> None:
    """Write the topic of each row: one of its sequence's topics, which follow the mix at the sequence's first row."""
    half = topics // 2
    for t in range(len(rows)):
        sequence = rows[t] // tokens_per_sequence
        choice = mix(key + (np.uint64(rows[t]) + ONE) * GOLDEN)
        picked = ((choice >> S32) * np.uint64(topics_per_sequence)) >> S32
        x = mix(mix(~key + (np.uint64(sequence) + ONE) * GOLDEN) + (picked + ONE) * GOLDEN)
        if drift == 0.0:
            out[t] = np.int64(((x >> S32) * np.uint64(topics)) >> S32)
            continue
        # Early topics make up a share that falls from (1 + drift)/2 to (1 - drift)/2 of the sequences' draws.
        time = sequence * tokens_per_sequence / num_tokens
        early = (x & LOW) < np.uint64((0.5 + drift * (0.5 - time)) * 4294967295.0)
        count = half if early else topics - half
        number = np.int64(((x >> S32) * np.uint64(count)) >> S32)
        out[t] = number if early else half + number


@numba.njit(nogil=True, cache=True)
def draw_remaining(weight: npt.NDArray[np.float64], open_: npt.NDArray[np.bool_], uniform: float) -> int:
    """Draw an index in proportion to `weight` among those that are open."""
    total = 0.0
    for e in range(len(weight)):
        if open_[e]:
            total += weight[e]
    left = uniform * total
    last = -1
    for e in range(len(weight)):
        if open_[e]:
            last = e
            left -= weight[e]
            if left < 0.0:
                return e
    return last


@numba.njit(nogil=True, cache=True)
def draw_experts(
    row_hash: npt.NDArray[np.uint64],
    topic: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float64],
    threshold: npt.NDArray[np.uint32],
    alias: npt.NDArray[np.int16],
    group_weight: npt.NDArray[np.float64],
    limit: int,
    out: IntArray,
) -> None:
    """Draw K different experts per token and layer, one after the other in proportion to their weights.

    Drawing from all experts and rejecting those already taken has the same law as drawing from the others only.

    Parameters
    ----------
    row_hash : (T,) uint64
    topic : (T,) int64
    weight, threshold, alias, group_weight
        See `traces.synthetic.tables.Tables`.
    limit : int
        Groups that a token may use; these are drawn first, in proportion to `group_weight`.
    out : (T, L, K) integers
    """
    layers, experts = weight.shape[0], weight.shape[2]
    groups = group_weight.shape[2]
    size = experts // groups
    top_k = out.shape[2]
    undrawn = np.ones(groups, np.bool_)
    open_expert = np.ones(experts, np.bool_)
    words = (experts + 63) // 64
    taken_bits = np.zeros(words, np.uint64)
    patience = top_k + REJECTIONS
    for layer in range(layers):  # outermost, as the tables of one layer fit the cache
        for t in range(len(row_hash)):
            z = topic[t]
            x = mix(row_hash[t] + np.uint64(layer + 1) * STRIDE)
            if limit < groups:
                undrawn[:] = True  # then the token keeps to the groups that it draws
                for _ in range(limit):
                    x += GOLDEN
                    group = draw_remaining(group_weight[layer, z], undrawn, (mix(x) >> S11) * UNIT)
                    undrawn[group] = False
            for n in range(words):
                taken_bits[n] = 0
            taken = 0
            draws = 0
            # Free of branches but for its end: mispredicted jumps would cost more than all the rest.
            while taken < top_k and draws < patience:
                x += GOLDEN
                bits = mix(x)
                e = np.int64(((bits >> S32) * np.uint64(experts)) >> S32)
                other = (bits & LOW) >= threshold[layer, z, e]
                e += (np.int64(alias[layer, z, e]) - e) * np.int64(other)
                bit = ONE << np.uint64(e & 63)
                fresh = (taken_bits[e >> 6] & bit) == 0
                if limit < groups:
                    fresh &= not undrawn[e // size]
                out[t, layer, taken] = e
                taken_bits[e >> 6] |= bit * np.uint64(fresh)
                taken += 1 if fresh else 0
                draws += 1
            if taken == top_k:
                continue
            for n in range(experts):
                open_expert[n] = limit == groups or not undrawn[n // size]
            for k in range(taken):
                open_expert[out[t, layer, k]] = False
            while taken < top_k:
                x += GOLDEN
                last = draw_remaining(weight[layer, z], open_expert, (mix(x) >> S11) * UNIT)
                open_expert[last] = False
                out[t, layer, taken] = last
                taken += 1
