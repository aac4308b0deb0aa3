"""Copying within compiled loops.

`target[:] = source` does the same, but what it would say of other shapes, in words, is compiled with it: a third to a
half of the code of a small loop, in each loop that does so.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy.typing as npt

__all__ = ["copy_row", "copy_table"]


@numba.njit(nogil=True, cache=True)
def copy_row(source: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
    """Copy `source` (N,) to the first N places of `target`."""
    for i in range(len(source)):
        target[i] = source[i]


@numba.njit(nogil=True, cache=True)
def copy_table(source: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
    """Copy `source` (N, M) to `target` (N, M)."""
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            target[i, j] = source[i, j]
