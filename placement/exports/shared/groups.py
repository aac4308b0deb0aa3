"""Routers that limit a token to groups of consecutive experts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["mixed_groups"]


def mixed_groups(order: npt.NDArray[np.integer], groups: int) -> npt.NDArray[np.int64]:
    """Return the rows of orders (L, E) in which a block of E/groups positions holds experts of several groups.

    Parameters
    ----------
    order : (L, E) integers
        Position p holds the expert that becomes number p.
    groups : int
        A divisor of E.
    """
    of_slot = (order // (order.shape[1] // groups)).reshape(len(order), groups, -1)
    return np.flatnonzero((of_slot != of_slot[:, :, :1]).any(axis=(1, 2)))
