"""Sharing a budget of copies out to layers: each next copies go where they save most.

A knapsack over convex curves, for which taking the steepest piece first is best. Replica budgets per layer by a
knapsack are the idea of CRAFT; the curves here are those of the objective itself, found by short searches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["copy_levels", "share_out"]

LEVELS = 5

Floats = npt.NDArray[np.floating[Any]]


def copy_levels(spare: int) -> npt.NDArray[np.int64]:
    """Return the numbers of extra copies in a layer to try, from 0 to `spare`, rising."""
    return np.unique(np.linspace(0, spare, LEVELS).astype(np.int64))


def share_out(cost: Floats, levels: npt.NDArray[np.integer[Any]], budget: int) -> npt.NDArray[np.int64]:
    """Return how many extra copies each layer gets, (L,); they add up to the budget, or to all there is room for.

    Parameters
    ----------
    cost : (L, n) float64
        What the layer adds to the objective with so many extra copies; between levels, the lower convex hull is taken.
    levels : (n,) integers
        Rising, from 0.
    budget : int
    """
    pieces = []  # (saving per copy, layer, order, copies)
    for layer, curve in enumerate(np.minimum.accumulate(cost, axis=1)):
        at = 0
        while at < len(levels) - 1:
            slope = (curve[at] - curve[at + 1 :]) / (levels[at + 1 :] - levels[at])
            end = at + 1 + int(slope.argmax())
            pieces.append((-float(slope.max()), layer, at, int(levels[end] - levels[at])))
            at = end
    given = np.zeros(len(cost), np.int64)
    for _, layer, _, copies in sorted(pieces):
        taken = min(copies, budget)
        given[layer] += taken
        budget -= taken
    return given
