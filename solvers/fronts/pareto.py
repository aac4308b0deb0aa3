"""What no plan of a search beats in both of two figures: the Pareto front, its knee, and the plan that keeps a cap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from placement import Plan, Score
from solvers.request import Against as Against
from solvers.searching.solution import NoPlanError
from traces import InputError

__all__ = ["Against", "Front", "FrontPoint", "cheapest_within", "knee_index", "nondominated", "thinned"]

Floats = npt.NDArray[np.float64]
AXES = {"imbalance": "imbalance", "replicas": "slots_per_gpu", "bytes_moved": "moved_experts"}


@dataclass(frozen=True, kw_only=True, eq=False)
class FrontPoint:
    """A plan of a front and its figures on the fitted profile.

    Attributes
    ----------
    plan : Plan
        Scored under the problem's own objective, whatever it was found with; ``provenance["front"]`` says with what.
    score : Score
        Its terms.
    traffic : float
        Traffic term, in the objective's unit.
    imbalance : float
        Largest GPU load relative to the fair share, mean over layers; 1 is balanced.
    worst_layer : float
        The same in the layer where it is largest: what a load cap is about.
    slots_per_gpu : int
    redundant_experts : int
        Slots per layer beyond one for each expert.
    extra_bytes : int or None
        Bytes of the redundant slots over all layers and GPUs, or of the budget of replicas where that is less; None
        where the bytes of an expert are not known.
    moved_experts : int or None
        Expert replicas that a GPU must load which it did not hold in the start plan; None without one.
    moved_bytes : int or None
        Their bytes.
    """

    plan: Plan
    score: Score
    traffic: float
    imbalance: float
    worst_layer: float
    slots_per_gpu: int
    redundant_experts: int
    extra_bytes: int | None
    moved_experts: int | None
    moved_bytes: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Front:
    """Plans of which none is at least as good as another in both figures.

    Attributes
    ----------
    against : {"imbalance", "replicas", "bytes_moved"}
        The figure that is weighed against the cost: `FrontPoint.imbalance`, `slots_per_gpu` or `moved_experts`.
    points : tuple of FrontPoint
        That figure rises, the cost falls. The cost is the traffic against the imbalance, else the objective's total:
        more replicas or more moves may go into less traffic or into better balance, as the objective weighs them.
    elapsed_s : float
    stopped : bool
        Whether it was interrupted: what was found until then.
    """

    against: Against
    points: tuple[FrontPoint, ...]
    elapsed_s: float = 0.0
    stopped: bool = False

    @property
    def axes(self) -> tuple[Floats, Floats]:
        """The figure and the cost of every point, (P,) each."""
        figure = np.array([getattr(point, AXES[self.against]) for point in self.points], dtype=np.float64)
        return figure, np.array([self.cost(point) for point in self.points])

    def cost(self, point: FrontPoint) -> float:
        """Return what a point costs: its traffic against the imbalance, else its score."""
        return point.traffic if self.against == "imbalance" else point.score.total

    @property
    def knee(self) -> FrontPoint:
        """The point farthest below the chord between the two ends, both axes scaled to 0..1; see `knee_index`."""
        return self.points[knee_index(*self.axes)]

    def obeying(self, cap: float) -> FrontPoint:
        """Return the point of least cost whose imbalance (mean over layers) is at most `cap`.

        Raises
        ------
        NoPlanError
            If no point is so balanced; the text names the most balanced one.
        InputError
            If the cap is below 1.
        """
        return self.points[
            cheapest_within(
                [point.imbalance for point in self.points], [self.cost(point) for point in self.points], cap
            )
        ]

    @classmethod
    def merged(cls, fronts: Sequence[Front], most: int) -> Front:
        """Return the front of all points of fronts of one problem, at most so many.

        Of equal points the first one stays. Plans with warnings, which miss the problem's load cap, are left out where
        others keep it.

        Parameters
        ----------
        fronts : sequence of Front
            At least one.
        most : int
            Points to keep; see `thinned`.
        """
        points = [point for front in fronts for point in front.points]
        whole = cls(
            against=fronts[0].against,
            points=tuple([point for point in points if not point.plan.warnings] or points),
            elapsed_s=max(front.elapsed_s for front in fronts),
            stopped=any(front.stopped for front in fronts),
        )
        figure, cost = (axis.tolist() for axis in whole.axes)
        kept = nondominated(figure, cost)
        kept = [kept[item] for item in thinned([figure[i] for i in kept], [cost[i] for i in kept], most)]
        return replace(whole, points=tuple(whole.points[item] for item in kept))


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
        from placement import Termination

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
