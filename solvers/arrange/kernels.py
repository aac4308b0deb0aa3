"""Moving second replicas of an expert off a GPU, compiled."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["separate_layer"]

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
