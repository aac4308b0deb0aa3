"""Plans of which none beats another in both of two figures, and what each costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from placement import Plan, Score
from solvers.fronts.pareto import cheapest_within, knee_index, nondominated, thinned
from solvers.requests.request import Against as Against
from solvers.searching.axes import axes_or_new
from traces.support.content import ByContent
from traces.support.frames import frame
from traces.support.shown import Facts, Shown

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["AXES", "AXIS_NAMES", "Against", "Front", "FrontPoint"]

Floats = npt.NDArray[np.float64]
MOST_SHOWN = 9  # points of a front in a terminal: with the title, ten lines
AXES = {
    "imbalance": "imbalance",
    "replicas": "slots_per_gpu",
    "bytes_moved": "moved_experts",
    "survival": "lost_experts",
}
AXIS_NAMES = {
    "imbalance": "busiest GPU / mean, mean over layers",
    "replicas": "slots per GPU",
    "bytes_moved": "expert replicas moved",
    "survival": "experts of a layer that the worst failure takes",
}
FIGURES = (
    "traffic",
    "imbalance",
    "worst_layer",
    "slots_per_gpu",
    "redundant_experts",
    "extra_bytes",
    "moved_experts",
    "moved_bytes",
    "lost_experts",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class FrontPoint(ByContent):
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
    lost_experts : int or None
        Experts without a live copy when the failure comes that takes most, in the layer that loses most; None where
        nothing is asked to survive.
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
    lost_experts: int | None = None

    def __repr__(self) -> str:
        return f"FrontPoint({self.told()})"

    def told(self) -> str:
        """Return the figures in words."""
        words = [
            f"traffic {self.traffic:.5g}",
            f"busiest GPU {self.imbalance:.4f} (worst layer {self.worst_layer:.4f})",
            f"score {self.score.total:.6g}",
        ]
        if self.redundant_experts:
            words.append(f"{self.redundant_experts} redundant{_size(self.extra_bytes)}")
        if self.moved_experts is not None:
            words.append(f"{self.moved_experts:,} moved{_size(self.moved_bytes)}")
        if self.lost_experts is not None:
            words.append(f"at most {self.lost_experts} lost")
        return ", ".join(words)


def _size(count: int | None) -> str:
    return "" if count is None else f" ({count / 1e9:.3g} GB)"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Front(Shown, ByContent):
    """Plans of which none is at least as good as another in both figures.

    Two are equal if their points are, however long it took.

    Attributes
    ----------
    against : {"imbalance", "replicas", "bytes_moved", "survival"}
        The figure that is weighed against the cost: `FrontPoint.imbalance`, `slots_per_gpu`, `moved_experts` or
        `lost_experts`.
    points : tuple of FrontPoint
        That figure rises, the cost falls. The cost is the traffic against the imbalance, else the objective's total:
        more replicas or more moves may go into less traffic or into better balance, as the objective weighs them.
    elapsed_s : float
    stopped : bool
        Whether it was interrupted: what was found until then.
    """

    against: Against
    points: tuple[FrontPoint, ...]
    elapsed_s: float = field(default=0.0, compare=False)
    stopped: bool = False

    def __len__(self) -> int:
        return len(self.points)

    def to_frame(self) -> DataFrame:
        """Return the points' figures as a pandas table, a row per point; `cost` and `knee` beside them.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        knee = self.knee if self.points else None
        rows = [
            {name: getattr(point, name) for name in FIGURES}
            | {"score": point.score.total, "cost": self.cost(point), "knee": point is knee}
            for point in self.points
        ]
        return frame(rows)

    def plot(self, ax: Any | None = None) -> Any:
        """Draw the cost over the figure, the knee marked; return the matplotlib Axes.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            A new figure's by default.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = axes_or_new(ax)
        figure, cost = self.axes
        ax.plot(figure, cost, marker="o", markersize=4)
        if self.points:
            at = knee_index(figure, cost)
            ax.plot(figure[at], cost[at], marker="o", markersize=10, fillstyle="none", linestyle="none", label="knee")
            ax.legend()
        ax.set(xlabel=AXIS_NAMES[self.against], ylabel="traffic" if self.against == "imbalance" else "score")
        return ax

    def _shown(self) -> tuple[str, Facts]:
        count, knee = len(self.points), self.knee if self.points else None
        kept = range(count)
        if count > MOST_SHOWN:  # both ends and what is evenly between
            kept = np.unique(np.linspace(0, count - 1, MOST_SHOWN - 1).round().astype(int)).tolist()
        facts = [
            (f"{number + 1}{' (knee)' if self.points[number] is knee else ''}", self.points[number].told())
            for number in kept
        ]
        left = "" if len(kept) == count else f", {len(kept)} of them here"
        stopped = ", stopped early" if self.stopped else ""
        return f"Front against {self.against}: {count} plans{left}, {self.elapsed_s:.1f} s{stopped}", facts

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
