"""Swaps of two experts between GPUs, compiled: down to where none gains, then on from there after random kicks.

References
----------
Lourenco, Martin and Stutzle, Iterated local search, Handbook of Metaheuristics (2003).
"""

from __future__ import annotations

from typing import Final

import numba as nb
import numpy as np
import numpy.typing as npt

from solvers.searching.kernels.random import next_below

__all__ = ["swapped_down"]

ENOUGH: Final = 1e-12  # of the cost: rounding is no gain
MOST_SWEEPS: Final = 1000
MOST_KICKS, KICK_TRIALS = 30, 300_000  # so many pairs are tried in kicks at least; chosen by trial
KICK: Final = 2  # swaps


@nb.njit(cache=True, nogil=True)
def swapped_down(
    cost: npt.NDArray[np.float64],
    load: npt.NDArray[np.float64],
    fair: npt.NDArray[np.float64],
    weight: float,
    gpu: npt.NDArray[np.int64],
    state: npt.NDArray[np.uint64],
) -> float:
    """Swap items between GPUs, in place, until no swap gains, and return what the layer costs then.

    Parameters
    ----------
    cost : (S, G) float64
        Of each item on each GPU.
    load : (S,) float64
        Of each item; an empty slot has none.
    fair : (G,) float64
        Fair share of each GPU.
    weight : float
        Of the largest load in fair shares.
    gpu : (S,) int64
        GPU of each item.
    state : (2,) uint64
        Of the generator of the kicks; see `solvers.searching.kernels.random.seeded`.
    """
    items = len(gpu)
    best = _down(cost, load, fair, weight, gpu)
    kicked = gpu.copy()
    for _ in range(min(MOST_KICKS, max(1, KICK_TRIALS // (items * items)))):
        for _ in range(KICK):
            a, b = next_below(state, items), next_below(state, items)
            kicked[a], kicked[b] = kicked[b], kicked[a]
        found = _down(cost, load, fair, weight, kicked)
        if found < best:
            best = found
            gpu[:] = kicked
        else:
            kicked[:] = gpu
    return best


@nb.njit(cache=True, nogil=True)
def _down(
    cost: npt.NDArray[np.float64],
    load: npt.NDArray[np.float64],
    fair: npt.NDArray[np.float64],
    weight: float,
    gpu: npt.NDArray[np.int64],
) -> float:
    items, gpus = cost.shape
    relative, total = np.zeros(gpus), 0.0
    for item in range(items):
        relative[gpu[item]] += load[item] / fair[gpu[item]]
        total += cost[item, gpu[item]]
    largest = relative.max()
    for _ in range(MOST_SWEEPS):
        gained = False
        for a in range(items):
            for b in range(a):
                here, there = gpu[a], gpu[b]
                if here == there:
                    continue
                change = cost[a, there] + cost[b, here] - cost[a, here] - cost[b, there]
                if change >= 0 and relative[here] < largest and relative[there] < largest:
                    continue
                moved = load[a] - load[b]
                new_here, new_there = relative[here] - moved / fair[here], relative[there] + moved / fair[there]
                most = max(new_here, new_there)
                for other in range(gpus):
                    if other not in (here, there):
                        most = max(most, relative[other])
                if change + weight * (most - largest) >= -ENOUGH * (abs(total) + weight * largest):
                    continue
                relative[here], relative[there] = new_here, new_there
                gpu[a], gpu[b] = there, here
                total, largest, gained = total + change, most, True
        if not gained:
            break
    return float(total + weight * largest)
