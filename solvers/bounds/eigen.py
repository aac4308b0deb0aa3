"""The largest eigenvalues of symmetric matrices, on threads.

NumPy computes all eigenvectors, SciPy holds the interpreter's lock while it computes some. LAPACK's own routine, which
SciPy exports, does neither: 3 to 7 times as fast for the few that the bounds need, and on all cores.
"""

from __future__ import annotations

import ctypes
import functools
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["largest_eigenvalues", "top_eigenpairs"]

_POINTER = ctypes.c_void_p


@functools.cache
def _routine(name: str) -> Any:
    """Return LAPACK's ``ssyevr`` or ``dsyevr``; a call through ctypes releases the lock."""
    from scipy.linalg import cython_lapack

    capsule = cython_lapack.__pyx_capi__[name]
    name_of, pointer_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of.restype, pointer_of.argtypes = _POINTER, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(None, *[_POINTER] * 21)(pointer_of(capsule, name_of(capsule)))


def _syevr(
    matrix: npt.NDArray[Any], vectors: bool, kind: str, low: float = 0.0, first: int = 1
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Call ``?syevr``: eigenvalues above `low` (kind "V"), from the `first` on (kind "I"), or all ("A"); ascending."""
    single = matrix.dtype == np.float32
    n = len(matrix)
    work_matrix = np.array(matrix, order="F")  # overwritten; the routine reads one triangle of a symmetric matrix
    number = ctypes.c_float if single else ctypes.c_double
    values = np.empty(n, matrix.dtype)
    found = np.empty((n, n) if vectors else (1, 1), matrix.dtype, order="F")
    count, info = ctypes.c_int(0), ctypes.c_int(0)
    support = np.empty(2 * n, np.int32)
    options = [ctypes.c_char(letter.encode()) for letter in ("V" if vectors else "N", kind, "L")]
    size, rows = ctypes.c_int(n), ctypes.c_int(len(found))
    lower, upper, tolerance = number(low), number(np.finfo(matrix.dtype).max / 4), number(0.0)
    begin, end = ctypes.c_int(first), ctypes.c_int(n)
    work, integers = np.empty(max(1, 40 * n), matrix.dtype), np.empty(max(1, 12 * n), np.int32)
    lengths = ctypes.c_int(len(work)), ctypes.c_int(len(integers))
    by = ctypes.byref
    _routine("ssyevr" if single else "dsyevr")(
        *(by(option) for option in options),
        by(size),
        work_matrix.ctypes.data,
        by(size),
        by(lower),
        by(upper),
        by(begin),
        by(end),
        by(tolerance),
        by(count),
        values.ctypes.data,
        found.ctypes.data,
        by(rows),
        support.ctypes.data,
        work.ctypes.data,
        by(lengths[0]),
        integers.ctypes.data,
        by(lengths[1]),
        by(info),
    )
    values, found = values[: count.value], found[:, : count.value]
    if info.value or not (np.isfinite(values).all() and (not vectors or np.isfinite(found).all())):
        raise np.linalg.LinAlgError(f"LAPACK's syevr failed with info = {info.value}.")
    return values, found


def top_eigenpairs(
    matrix: npt.NDArray[np.float32], above: float | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the eigenvalues above `above` (all for None), ascending, and their eigenvectors as columns.

    Parameters
    ----------
    matrix : (n, n) float32 or float64, symmetric
    above : float or None
        Values below may be returned as well.
    """
    if above is not None:
        with suppress(np.linalg.LinAlgError):  # of values that are near each other, it loses some
            return _syevr(matrix, True, "V", low=above)
    return _syevr(matrix, True, "A")


def largest_eigenvalues(matrix: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Return the `count` largest eigenvalues of a symmetric matrix (n, n) in double precision, ascending."""
    values = _syevr(matrix, False, "I", first=max(1, len(matrix) - count + 1))[0]
    if len(values) != min(count, len(matrix)):
        raise np.linalg.LinAlgError(f"LAPACK's syevr found {len(values)} eigenvalues of {count}.")
    return values
