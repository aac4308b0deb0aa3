"""The compiled loops of the doctor's pass over tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from traces.support.mixing import mix

__all__ = ["MISSING", "OTHER", "Seen", "chain_rows", "observe_rows"]

Counts = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
IntArray = npt.NDArray[np.integer[Any]]

MISSING, OTHER = -2, -1  # columns of the counts, from their end: -1 among the ids, and what is no id at all
ZERO, REPEATED, UNIFORM, ZERO_TWICE, OTHER_TWICE = 0, 1, 2, 3, 4


class Seen(NamedTuple):
    """What the pass adds up, all int64.

    Attributes
    ----------
    ids : (6, L, V + 2)
        Entries by phase (prefill, decode, unknown; the same for the other half of the sequences), layer and id; then
        those that are -1, and those that are no id. Rows of nothing but zeros are left out, and so are layers of a
        token that are all zero: no token with K > 1 chooses that.
    columns : (K, V + 2)
        The same entries by their place in the token's list.
    tokens : (6, L)
        Tokens with anything in the layer.
    blank : (L,)
        Tokens whose entries in the layer are all zero, where K > 1.
    rows : (6, 5)
        By phase: rows of nothing but zeros, repeats of the row before, and rows of a single id other than 0; tokens and
        layers with id 0 twice beside others, and with another id twice.
    first : (5,)
        The first row of each kind; -1 where there is none.
    twice : (V + 2,)
        Layers of tokens that list an id twice, for ids from 1 on.
    common : (3, C)
        Rows that may be common, by a part of their hash: the rest of the hash, how often they were seen, and the first
        of them. Another row of the same place takes one off, so that only what is common is left (Boyer and Moore's
        majority vote).
    """

    ids: Counts
    columns: Counts
    tokens: Counts
    blank: Counts
    rows: Counts
    first: Counts
    twice: Counts
    common: Counts


@numba.njit(nogil=True, cache=True)
def observe_rows(
    ids: IntArray,
    rows: Counts,
    phase: IntArray,
    last: IntArray,
    has_last: bool,
    fillers_from: int,
    zeros_tell: bool,
    seen: Seen,
) -> Hashes:
    """Add tokens to what was seen, and return a hash of each row, 0 for rows without any expert, (T,) uint64.

    Parameters
    ----------
    ids : (T, L, K) integers
    rows : (T,) int64
    phase : (T,) integers
        0 prefill, 1 decode, 2 unknown; 3 more for the other half of the sequences.
    last : (L, K) integers
        The row before, if `has_last`.
    fillers_from : int
        Ids that are as large may repeat within a token: they are no experts.
    zeros_tell : bool
        Whether no token chooses expert 0 only: with K > 1, or in many layers.
    seen : Seen
    """
    T, L, K = ids.shape
    cells = seen.ids.shape[2] - 2
    hashes = np.zeros(T, np.uint64)
    for t in range(T):
        zero, uniform, first = True, True, ids[t, 0, 0]
        for layer in range(L):
            if not (zero or uniform):
                break
            for k in range(K):
                if ids[t, layer, k] != 0:
                    zero = False
                if ids[t, layer, k] != first:
                    uniform = False
        p = phase[t]
        kind = -1
        nothing = uniform and not 0 <= first < fillers_from
        if zero and zeros_tell:
            kind = ZERO
        elif not nothing:
            before = last if t == 0 else ids[t - 1]
            same = has_last or t > 0
            if same:
                for layer in range(L):
                    for k in range(K):
                        if ids[t, layer, k] != before[layer, k]:
                            same = False
                            break
                    if not same:
                        break
            if uniform and K > 1:
                kind = UNIFORM
            elif same:
                kind = REPEATED
        if kind >= 0:
            seen.rows[p, kind] += 1
            if seen.first[kind] < 0:
                seen.first[kind] = rows[t]
        if kind in (ZERO, UNIFORM):
            continue
        h = np.uint64(0x9E3779B97F4A7C15)
        for layer in range(L):
            there, twice, zeros = False, np.int64(0), 0
            for k in range(K):
                v = np.int64(ids[t, layer, k])
                h = (h ^ np.uint64(v)) * np.uint64(0x100000001B3)
                if v >= 0:
                    there = True
                zeros += v == 0
                if v > 0 and not twice:
                    for b in range(k):
                        if ids[t, layer, b] == v:
                            twice = v
            h = mix(h)
            if zeros == K > 1:
                seen.blank[layer] += 1
                continue
            seen.tokens[p, layer] += there
            if twice:
                seen.twice[min(twice, cells)] += 1
            wrong = 0 < twice < fillers_from
            if zeros > 1 or wrong:
                fault = OTHER_TWICE if wrong else ZERO_TWICE
                seen.rows[p, fault] += 1
                if seen.first[fault] < 0:
                    seen.first[fault] = rows[t]
            for k in range(K):
                v = np.int64(ids[t, layer, k])
                cell = v if 0 <= v < cells else (cells if v == -1 else cells + 1)
                seen.ids[p, layer, cell] += 1
                seen.columns[k, cell] += 1
        if nothing:
            continue
        hashes[t] = h | np.uint64(1)
        place = np.int64(h >> np.uint64(8)) % seen.common.shape[1]
        name = np.int64(h >> np.uint64(1))
        if seen.common[0, place] == name:
            seen.common[1, place] += 1
        elif seen.common[1, place] > 0:
            seen.common[1, place] -= 1
        else:
            seen.common[0, place], seen.common[1, place], seen.common[2, place] = name, 1, rows[t]
    return hashes


@numba.njit(nogil=True, cache=True)
def chain_rows(hashes: Hashes, number: Counts, chain: Hashes, length: Counts) -> None:
    """Append rows to the chains of their sequences, in order; rows whose hash is 0 are left out.

    Parameters
    ----------
    hashes : (T,) uint64
    number : (T,) int64
        Index of each row's sequence; -1: not followed.
    chain : (n,) uint64
        Changed in place.
    length : (n,) int64
        Rows of each chain; changed in place.
    """
    for t in range(len(hashes)):
        n = number[t]
        if n >= 0 and hashes[t]:
            chain[n] = mix(chain[n] * np.uint64(0x9E3779B97F4A7C15) + hashes[t])
            length[n] += 1
