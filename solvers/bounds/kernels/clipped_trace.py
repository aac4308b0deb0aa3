"""The shift that gives clipped eigenvalues the trace they should have."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["shift_for_trace"]

HALVINGS = 60  # of an interval of numbers of double precision, which have 53 bits


@numba.njit(nogil=True, cache=True)
def shift_for_trace(values: npt.NDArray[np.floating[Any]], most: float, total: float) -> float:
    """Return s with ``sum of clip(values - s, 0, most) = total``, to rounding.

    Parameters
    ----------
    values : (n,) float
    most : float
    total : float
        Above 0, at most ``n most``.
    """
    low, high = values.min() - most, values.max()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = 0.0
        for value in values:
            found += min(most, max(0.0, value - middle))
        if found > total:
            low = middle
        else:
            high = middle
    return float((low + high) / 2)
