"""Triangle inequalities of a co-location matrix: finding violated ones, and enforcing them on the way to a bound."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["add_triangles", "find_triangles", "project", "update_dual"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


@numba.njit(nogil=True, cache=True)
def find_triangles(together: Floats, least: float, limit: int) -> tuple[Ints, Floats, int]:
    """Find triangles ``y_ij + y_jk - y_ik <= 1`` (i and j on one GPU, j and k too, then i and k) that are violated.

    Parameters
    ----------
    together : (n, n) float
        Co-location matrix, symmetric.
    least : float
        Violations below it don't count.
    limit : int
        Triangles to return at most.

    Returns
    -------
    triangles : (m, 3) int32
        i, j, k with i < k.
    violation : (m,) float64
    count : int
        Violated ones there are; above `limit`, some are missing from the others.
    """
    n = len(together)
    found = np.empty((limit, 3), np.int32)
    violation = np.empty(limit)
    count = 0
    for i in range(n):
        for k in range(i + 1, n):
            most = together[i, k] + 1.0 + least
            for j in range(n):
                both = together[i, j] + together[k, j]
                if both > most and j != i and j != k:
                    if count < limit:
                        found[count, 0], found[count, 1], found[count, 2] = i, j, k
                        violation[count] = both - together[i, k] - 1.0
                    count += 1
    kept = min(count, limit)
    return found[:kept], violation[:kept], count


@numba.njit(nogil=True, cache=True)
def add_triangles(matrix: Floats, triangles: Ints, weight: Floats, factor: float) -> None:
    """Add ``factor * weight[c]`` times the coefficients of each triangle to a symmetric matrix, in place."""
    for c in range(len(triangles)):
        step = factor * weight[c]
        if step == 0.0:
            continue
        i, j, k = triangles[c]
        matrix[i, j] += step
        matrix[j, i] += step
        matrix[j, k] += step
        matrix[k, j] += step
        matrix[i, k] -= step
        matrix[k, i] -= step


@numba.njit(nogil=True, cache=True)
def _shift(free: Floats, together: Floats, i: int, j: int, step: float) -> None:
    free[i, j] += step
    free[j, i] = free[i, j]
    together[i, j] = min(1.0, max(0.0, free[i, j]))
    together[j, i] = together[i, j]


@numba.njit(nogil=True, cache=True)
def project(free: Floats, together: Floats, triangles: Ints, weight: Floats) -> None:
    """Fill `together` with the nearest matrix to `free` in the box 0..1 with ones on the diagonal, triangles kept.

    One sweep of Hildreth's method: each triangle's multiplier in `weight` takes an exact step in turn. Multipliers are
    kept from call to call, so that sweeps add up to the projection.

    Parameters
    ----------
    free : (n, n) float64
        What to project; changed by the triangles' multipliers.
    together : (n, n) float64
        Result.
    triangles : (m, 3) integers
    weight : (m,) float64
    """
    n = len(free)
    add_triangles(free, triangles, weight, -1.0)
    for i in range(n):
        for j in range(n):
            together[i, j] = min(1.0, max(0.0, free[i, j]))
    for c in range(len(triangles)):
        i, j, k = triangles[c]
        new = max(0.0, weight[c] + (together[i, j] + together[j, k] - together[i, k] - 1.0) / 3.0)
        step = new - weight[c]
        if step != 0.0:
            weight[c] = new
            _shift(free, together, i, j, -step)
            _shift(free, together, j, k, -step)
            _shift(free, together, i, k, step)
    for i in range(n):
        together[i, i] = 1.0


@numba.njit(nogil=True, cache=True)
def update_dual(dual: Floats, near: Floats, together: Floats, before: Floats, relax: float) -> tuple[float, float]:
    """Take the multipliers' step ``dual += relax * near + (1 - relax) * before - together``.

    Returns
    -------
    primal, change : float
        Squared norms of ``near - together`` and ``together - before``.
    """
    primal = change = 0.0
    n = len(dual)
    for i in range(n):
        for j in range(n):
            dual[i, j] += relax * near[i, j] + (1.0 - relax) * before[i, j] - together[i, j]
            primal += (near[i, j] - together[i, j]) ** 2
            change += (together[i, j] - before[i, j]) ** 2
    return primal, change
