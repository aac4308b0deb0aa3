"""The time of steps whose experts come over one link: what is fetched while something is computed costs nothing."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from placement.residency.kernels.prefetch import CACHED, PREFETCHED

__all__ = ["compute_cold", "tick"]

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]


@numba.njit(nogil=True, cache=True)
def tick(
    start: Ints,
    item: Ints,
    kind: npt.NDArray[np.uint8],
    issued: Ints,
    item_of: Ints,
    access_of: Ints,
    compute: Floats,
    rest: float,
    transfer: Floats,
    layers: int,
    per_step: Floats,
) -> float:
    """Write the time of each step, and return how long all of them waited for experts.

    In every layer, attention comes first; then the router tells the experts. What is missing is queued behind what the
    link still carries; then what is prefetched for a later layer. Experts that are there are computed meanwhile, and
    the last one to come when it has come.

    Parameters
    ----------
    start : (P * L + 1,) integers
    item : (A,) integers
        Number of each access's expert among all.
    kind, issued, item_of, access_of
        See `run_prefetch`.
    compute : (P * L,) floats
        Time of each set's experts.
    rest : float
        Time of each layer beside its experts.
    transfer : (L * E,) floats
        Time that it takes to fetch each expert.
    layers : int
    per_step : (P,) floats
        Set.
    """
    ready = np.zeros(len(kind), np.float64)
    now = 0.0
    free = 0.0  # when the link has done everything that it was asked for
    waited = 0.0
    begun = 0.0
    for index in range(len(start) - 1):
        now += rest
        arrived = now
        size = start[index + 1] - start[index]
        for access in range(start[index], start[index + 1]):
            if kind[access] == PREFETCHED:
                arrived = max(arrived, ready[access])
            elif kind[access] != CACHED:
                free = max(free, now) + transfer[item[access]]
                arrived = max(arrived, free)
        for k in range(issued[index], issued[index + 1]):
            free = max(free, now) + transfer[item_of[k]]
            if access_of[k] >= 0:
                ready[access_of[k]] = free
        done = now + compute[index]
        if arrived > now:
            last = arrived + compute[index] / size
            if last > done:
                waited += last - done
                done = last
        now = done
        if index % layers == layers - 1:
            per_step[index // layers] = now - begun
            begun = now
    return waited


@numba.njit(nogil=True, cache=True)
def compute_cold(
    start: Ints,
    tokens: Ints,
    kind: npt.NDArray[np.uint8],
    compute: Floats,
    rest: float,
    read: float,
    per_token: float,
    layers: int,
    per_step: Floats,
) -> float:
    """Write the time of each step where the host computes what is not resident, and return how long the GPU waits.

    Parameters
    ----------
    start, tokens, kind, rest, layers, per_step
        See `tick`.
    compute : (P * L,) floats
        Time of each set's resident experts on the GPU.
    read : float
        Time in which the host reads an expert's weights.
    per_token : float
        Time in which it computes one token.
    """
    waited = 0.0
    for index in range(len(start) - 1):
        host = 0.0
        for access in range(start[index], start[index + 1]):
            if kind[access] != CACHED:
                host += max(read, per_token * tokens[access])
        waited += max(0.0, host - compute[index])
        if index % layers == 0:
            per_step[index // layers] = 0.0
        per_step[index // layers] += rest + max(host, compute[index])
    return waited
