"""What no other point beats in both of two figures: the Pareto front, its knee, and the point that keeps a cap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from placement import Termination
from solvers.plans import NoPlanError
from traces import InputError

__all__ = ["cheapest_within", "knee_index", "nondominated", "thinned"]

Floats = npt.NDArray[np.float64]


def cheapest_within(imbalance: Sequence[float], cost: Sequence[float], cap: float) -> int:
    """Return the number of the point of least cost whose imbalance is at most `cap`.

    Raises
    ------
    NoPlanError
        If no point is so balanced; the text names the most balanced one.
    InputError
        If the cap is below 1.
    """
    if not cap >= 1:
        detail = f"An imbalance of {cap} can't be: the largest load is at least the mean."
        raise InputError.of("cap_range", "/cap", detail, "Give at least 1, such as 1.05.")
    kept = [item for item, value in enumerate(imbalance) if value <= cap * (1 + 1e-9)]
    if not kept:
        detail = f"No plan of the front has an imbalance of at most {cap:g}; the least is {min(imbalance):.4f}."
        raise NoPlanError(Termination(reason="no_plan", detail=detail))
    return min(kept, key=cost.__getitem__)


def nondominated(figure: Sequence[float], cost: Sequence[float]) -> list[int]:
    """Return the numbers of the points that no other point equals or beats in both figures, by rising `figure`.

    Of equal points the first one stays.
    """
    order = sorted(range(len(figure)), key=lambda item: (figure[item], cost[item], item))
    kept: list[int] = []
    for item in order:
        if not kept or cost[item] < cost[kept[-1]]:
            kept.append(item)
    return kept


def knee_index(figure: Floats, cost: Floats) -> int:
    """Return the point of a front that is farthest from the chord between its ends.

    Parameters
    ----------
    figure, cost : (P,) float64
        Of a front: `figure` rises, `cost` falls.

    Returns
    -------
    int
        Distance is taken on the side of less cost, with both axes scaled so that the ends are at 0 and 1; the first
        of equal points, which is 0 where no point is below the chord.

    References
    ----------
    I. Das, Structural Optimization 18 (1999), "On characterizing the knee of the Pareto curve based on
    normal-boundary intersection".
    """
    if len(figure) < 3:
        return 0
    along = (figure - figure[0]) / (figure[-1] - figure[0])
    down = (cost[0] - cost) / (cost[0] - cost[-1])
    return int(np.argmax(np.where(down - along > 1e-12, down - along, 0.0)))


def thinned(figure: Sequence[float], cost: Sequence[float], most: int) -> list[int]:
    """Return the numbers of at most so many points of a front, both ends among them.

    One after the other, the point goes whose absence loses the smallest area (of the rectangle between its
    neighbours that only it dominates).
    """
    kept = list(range(len(figure)))
    while len(kept) > max(most, 2):
        lost = [
            (figure[after] - figure[here]) * (cost[before] - cost[here])
            for before, here, after in zip(kept, kept[1:], kept[2:], strict=False)
        ]
        del kept[1 + int(np.argmin(lost))]
    return kept
