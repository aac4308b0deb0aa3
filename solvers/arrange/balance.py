"""Plans that a few moves away are better balanced: from the plan that runs, one change at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.arrange.kernels import balance_layer

__all__ = ["balanced_tables"]

Table = npt.NDArray[np.int32]
MOST_CHANGES = 128  # per layer: half of the experts of a large layer; chosen by trial
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # of each layer's changes, as plans; chosen by trial


def balanced_tables(problem: Problem, start: npt.NDArray[np.integer]) -> list[Table]:
    """Return maps that lead from `start` to a balanced one, with ever more moves.

    Only loads are looked at, with equal parts for replicas: what the maps cost otherwise is for others to say. None
    where a GPU holds an expert twice.

    Parameters
    ----------
    problem : Problem
    start : (L, S) integers
    """
    layers, gpus = problem.num_layers, problem.num_gpus
    slots = np.array(start, np.int32).reshape(layers, gpus, -1)
    ordered = np.sort(slots, axis=2)
    if ((ordered[:, :, 1:] == ordered[:, :, :-1]) & (ordered[:, :, 1:] >= 0)).any():
        return []
    load, share = problem.relative_load, np.asarray(problem.topology.fair_share, np.float64)
    ways = [
        balance_layer(row.copy(), np.asarray(load[layer], np.float64), share, problem.capacity, MOST_CHANGES)
        for layer, row in enumerate(slots)
    ]
    found = []
    for part in SHARES:
        table = slots.copy()
        for layer, way in enumerate(ways):
            if count := int(np.ceil(part * len(way))):
                table[layer] = way[count - 1]
        found.append(table.reshape(layers, -1))
    return found
