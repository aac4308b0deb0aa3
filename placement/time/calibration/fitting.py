"""Coefficients that are not negative and fit in relative terms, robustly, with a floor where the data show one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares, nnls

from placement.time.experts import joined

__all__ = ["Fit", "fit"]

Floats = npt.NDArray[np.float64]
Fit = tuple[float, Floats]  # floor, coefficients
ROUNDS = 12
LEAST_RESIDUAL = 0.01  # what is within a percent weighs no more than that
BEND = 0.05  # relative error from which on it counts linearly


def line(terms: Floats, measured: Floats) -> Floats:
    """Return coefficients >= 0 that make the sum of absolute relative errors small, by reweighted least squares."""
    relative = terms / measured[:, None]
    scale = np.maximum(np.abs(relative).max(axis=0), 1e-300)
    relative = relative / scale
    weight = np.ones(len(measured))
    found = np.zeros(terms.shape[1])
    for _ in range(ROUNDS):
        found, _ = nnls(relative * weight[:, None], weight, maxiter=50 * terms.shape[1])
        weight = 1 / np.sqrt(np.maximum(np.abs(relative @ found - 1), LEAST_RESIDUAL))
    coefficients: Floats = found / scale
    return coefficients


def fit(terms: Floats, measured: Floats, *, floor: bool = True) -> Fit:
    """Fit ``soft maximum(floor, terms @ coefficients)``.

    Parameters
    ----------
    terms : (R, N) float64
    measured : (R,) float64
        Above 0.
    floor : bool
        Whether one is looked for; 0 where a line alone fits as well.

    Returns
    -------
    floor : float
    coefficients : (N,) float64
    """
    best = polished(0.0, line(terms, measured), terms, measured)
    if not floor:
        return best
    order = np.sort(measured)
    for start in (order[len(order) // 20], order[len(order) // 8]):
        level, coefficients = start, best[1]
        for _ in range(6):
            above = terms @ coefficients > 0.9 * level
            if above.sum() < 2 * terms.shape[1]:
                break
            coefficients = line(terms[above], measured[above])
            below = terms @ coefficients < 0.8 * level
            if below.sum() < 5:
                break
            level = float(np.median(measured[below]))
        other = polished(level, coefficients, terms, measured)
        if loss(other, terms, measured) < 0.97 * loss(best, terms, measured):
            best = other
    return best


def loss(found: Fit, terms: Floats, measured: Floats) -> float:
    """Return the mean absolute log error."""
    return float(np.abs(np.log(joined(found[0], terms @ found[1]) / measured)).mean())


def polished(floor: float, coefficients: Floats, terms: Floats, measured: Floats) -> Fit:
    """Return floor and coefficients that are above 0, after some steps towards the least robust log error."""
    kept = np.flatnonzero(coefficients > 0)
    scale = 1 / np.maximum((terms[:, kept] / measured[:, None]).max(axis=0, initial=0), 1e-300)
    with_floor = floor > 0
    scale = np.r_[floor, scale] if with_floor else scale
    start = np.r_[floor, coefficients[kept]] if with_floor else coefficients[kept]

    def residuals(point: Floats) -> Floats:
        values = point * scale
        level, rest = (values[0], values[1:]) if with_floor else (0.0, values)
        return np.log(joined(float(level), terms[:, kept] @ rest) / measured)

    done = least_squares(residuals, start / scale, bounds=(0, np.inf), loss="soft_l1", f_scale=BEND, max_nfev=60)
    values = done.x * scale
    found = np.zeros_like(coefficients)
    found[kept] = values[1:] if with_floor else values
    # Less than a thousandth of every measurement is rounding.
    found[(found * terms / measured[:, None]).max(axis=0) < 1e-3] = 0
    return (float(values[0]) if with_floor else 0.0), found
