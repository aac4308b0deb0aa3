"""Compiled choice of the largest logits of each token."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["largest"]

EIGHT = 8  # of up to so many, the choice has no branches
COLUMN_BITS = 16
COLUMNS = (1 << COLUMN_BITS) - 1
Ids = npt.NDArray[np.int16]
Rows = npt.NDArray[np.int64]


def largest(values: npt.NDArray[Any], rows: Rows, ids: Ids) -> int:
    """Write the columns of the largest values of some rows, the largest first; of equal ones, the first column wins.

    Parameters
    ----------
    values : (N, E) floats
        Native byte order.
    rows : (T,) int64
    ids : (T, K) int16
        Written to; K <= E.

    Returns
    -------
    int
        -1, or the first of the rows (index into `rows`) in which a value is NaN; less than -1 where a largest one is
        infinite: -2 minus the first such.
    """
    if values.dtype.itemsize < 4:  # numba knows no half precision
        values = values.astype(np.float32)
    values.flags.writeable = False  # one type for the compiler
    if values.dtype == np.float32 and ids.shape[1] <= EIGHT <= values.shape[1] <= COLUMNS:
        return int(_largest_of_up_to_eight(values, values.view(np.int32), rows, ids))
    return int(_largest(values, rows, ids))


@numba.njit(nogil=True, cache=True)
def _largest(values: npt.NDArray[Any], rows: Rows, ids: Ids) -> int:
    """Insert value by value."""
    top, infinite = ids.shape[1], -1
    best = np.empty(top, values.dtype)
    for at in range(len(rows)):
        row, held = values[rows[at]], 0
        for column in range(len(row)):
            value = row[column]
            if held == top and value <= best[top - 1]:
                continue
            if np.isnan(value):
                return at
            place = held if held < top else top - 1
            while place > 0 and best[place - 1] < value:
                best[place], ids[at, place] = best[place - 1], ids[at, place - 1]
                place -= 1
            best[place], ids[at, place] = value, column
            held = min(held + 1, top)
        if infinite < 0 and (np.isinf(best[0]) or np.isinf(best[top - 1])):
            infinite = at
    return -1 if infinite < 0 else -2 - infinite


@numba.njit(nogil=True, cache=True)
def _largest_of_up_to_eight(values: npt.NDArray[np.float32], bits: npt.NDArray[np.int32], rows: Rows, ids: Ids) -> int:
    """Take the few values that may be among the eight largest, and sort them as integers, their columns behind."""
    top, width, infinite = ids.shape[1], values.shape[1], -1
    candidates, keys = np.empty(width, np.int64), np.empty(EIGHT, np.int64)
    for at in range(len(rows)):
        row, bit = values[rows[at]], bits[rows[at]]
        least, count, unknown = _least(row), 0, False
        for column in range(width):
            candidates[count] = column
            count += not row[column] < least  # NaN is not
        keys[:] = np.iinfo(np.int64).min
        k0, k1, k2, k3, k4, k5, k6, k7 = keys[0], keys[0], keys[0], keys[0], keys[0], keys[0], keys[0], keys[0]
        for number in range(count):
            column = candidates[number]
            value = row[column]
            unknown |= value != value
            # Floats in order as integers: all bits but the sign's are turned round where it is set. -0 is 0.
            order = np.int64(bit[column])
            order = np.int64(0) if value == 0 else order ^ ((order >> 31) & 0x7FFFFFFF)
            key = (order << COLUMN_BITS) | (COLUMNS - column)
            k0, key = max(k0, key), min(k0, key)
            k1, key = max(k1, key), min(k1, key)
            k2, key = max(k2, key), min(k2, key)
            k3, key = max(k3, key), min(k3, key)
            k4, key = max(k4, key), min(k4, key)
            k5, key = max(k5, key), min(k5, key)
            k6, key = max(k6, key), min(k6, key)
            k7 = max(k7, key)
        if unknown:
            return at
        keys[0], keys[1], keys[2], keys[3], keys[4], keys[5], keys[6], keys[7] = k0, k1, k2, k3, k4, k5, k6, k7
        for place in range(top):
            ids[at, place] = COLUMNS - (keys[place] & COLUMNS)
        if infinite < 0 and (np.isinf(row[ids[at, 0]]) or np.isinf(row[ids[at, top - 1]])):
            infinite = at
    return -1 if infinite < 0 else -2 - infinite


@numba.njit(nogil=True, cache=True)
def _least(row: npt.NDArray[np.float32]) -> Any:
    """Return a value that at least eight are not less than: the least of the largest of eight groups."""
    a, b, c, d, e, f, g, h = row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]
    for start in range(EIGHT, len(row) // EIGHT * EIGHT, EIGHT):
        a, b = max(a, row[start]), max(b, row[start + 1])
        c, d = max(c, row[start + 2]), max(d, row[start + 3])
        e, f = max(e, row[start + 4]), max(f, row[start + 5])
        g, h = max(g, row[start + 6]), max(h, row[start + 7])
    return min(min(min(a, b), min(c, d)), min(min(e, f), min(g, h)))
