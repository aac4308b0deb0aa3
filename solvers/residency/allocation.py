"""Slots for each layer, by what they gain."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["allocate"]


def allocate(gain: npt.NDArray[np.floating], unit: int, total: int, most: int) -> npt.NDArray[np.int64]:
    """Return the slots of each layer that gain most together, (L,), exactly for whole units.

    Curves need not be concave: LRU gains nothing until a whole round fits. A dynamic program over the layers goes
    through all ways to share the units.

    Parameters
    ----------
    gain : (L, J) floats
        What the hits of each layer save with a cache of 0, 1, ... J - 1 units.
    unit : int
        Slots of a unit.
    total : int
        Slots of all layers. What makes no whole unit goes to the first layers that have room.
    most : int
        Slots that a layer has a use for, its experts.
    """
    layers, sizes = gain.shape
    units = min(total // unit, layers * (sizes - 1))
    best = np.zeros(units + 1)
    choice = np.zeros((layers, units + 1), np.int64)
    for layer in range(layers):
        tried = np.full((sizes, units + 1), -np.inf)
        for size in range(min(sizes, units + 1)):
            tried[size, size:] = best[: units + 1 - size] + gain[layer, size]
        choice[layer] = tried.argmax(axis=0)
        best = tried.max(axis=0)
    room = np.zeros(layers, np.int64)
    left = units
    for layer in range(layers - 1, -1, -1):
        room[layer] = unit * choice[layer, left]
        left -= int(choice[layer, left])
    spare = total - int(room.sum())
    for layer in range(layers):
        more = min(spare, most - int(room[layer]))
        room[layer] += more
        spare -= more
    return room
