"""Where the search of a layer starts: columns near a plan, and the range of the largest load, whole or in pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.methods.set_partition.gpu_sets import GpuSets

__all__ = ["Piece", "columns_near"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Row = npt.NDArray[np.integer[Any]]


@dataclass(kw_only=True)
class Piece:
    """Choices whose largest load is between two values: what they cost at least, and the duals that say so."""

    low: float
    high: float
    bound: float  # costs are never negative
    base: float = -np.inf  # of the linear program, without the largest load
    duals: tuple[Array, Array] | None = None
    least: Array | None = None  # reduced cost of each GPU
    solved: bool = False
    decided: int = 0  # columns that were decided in whole numbers


def columns_near(sets: GpuSets, row: Row) -> Ints:
    """Return columns of a row (G, C): each set on each GPU, and with one expert exchanged on its own.

    A column is a set's number times G, plus the GPU.
    """
    G, E = sets.problem.num_gpus, sets.problem.num_experts
    everywhere = (sets.number(row)[:, None] * G + np.arange(G)).ravel()
    result = [everywhere]
    for gpu, members in enumerate(row):
        others = np.setdiff1d(np.arange(E), members)
        swapped = np.repeat(members[None], len(members) * len(others), axis=0)
        swapped[np.arange(len(swapped)), np.repeat(np.arange(len(members)), len(others))] = np.tile(
            others, len(members)
        )
        if len(swapped):
            result.append(sets.number(swapped) * G + gpu)
    return np.unique(np.concatenate(result))
