"""A small generator for compiled loops: xoroshiro128+ (Blackman and Vigna, TOMS 47(4), 2021), state as two words."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["next_below", "next_unit", "next_word", "seeded"]

State = npt.NDArray[np.uint64]


def seeded(*entropy: int) -> State:
    """Return a generator state (2,) uint64 from a sequence of integers (numpy's SeedSequence mixes them)."""
    return np.asarray(np.random.SeedSequence(entropy).generate_state(2, np.uint64), dtype=np.uint64)


@numba.njit(nogil=True, cache=True, inline="always")
def next_word(state: State) -> np.uint64:
    """Return 64 random bits and advance `state`."""
    s0, s1 = state[0], state[1]
    result: np.uint64 = s0 + s1
    s1 ^= s0
    state[0] = ((s0 << np.uint64(24)) | (s0 >> np.uint64(40))) ^ s1 ^ (s1 << np.uint64(16))
    state[1] = (s1 << np.uint64(37)) | (s1 >> np.uint64(27))
    return result


@numba.njit(nogil=True, cache=True, inline="always")
def next_below(state: State, bound: int) -> int:
    """Return an integer in [0, bound), bound < 2^31 (multiply-shift; the bias is below 2^-32 * bound)."""
    word = next_word(state) >> np.uint64(32)
    return int(np.int64((word * np.uint64(bound)) >> np.uint64(32)))  # int alone stays unsigned in numba


@numba.njit(nogil=True, cache=True, inline="always")
def next_unit(state: State) -> float:
    """Return a float in [0, 1)."""
    return np.float64(next_word(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)
