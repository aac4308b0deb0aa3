"""What a search returns: the plan, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from placement import Plan, Score, Termination
from solvers.searching.axes import axes_or_new
from traces.support.content import ByContent
from traces.support.frames import frame
from traces.support.shown import Facts, Shown

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Solution", "Step"]


USELESS_GAP = 0.9  # a bound of a tenth of the score or less says that the search could not bound the problem


@dataclass(frozen=True, kw_only=True)
class Step:
    """A point of the search's history: the best score and bound after `elapsed_s` seconds."""

    elapsed_s: float
    solver: str
    score: float | None
    bound: float | None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Solution(Shown, ByContent):
    """Result of `solve`.

    Two are equal if plan, score and termination are, however long it took.

    Attributes
    ----------
    plan : Plan
        With score, bound, termination, provenance and warnings.
    score : Score
        Terms and per-layer figures on the fitted profile.
    termination : Termination
    elapsed_s : float
    history : tuple of Step
    """

    plan: Plan
    score: Score
    termination: Termination
    elapsed_s: float = field(compare=False)
    history: tuple[Step, ...] = field(compare=False)

    def to_frame(self) -> DataFrame:
        """Return the history as a pandas table: `elapsed_s`, `solver`, `score` and `bound`, a row per step.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return frame({name: [getattr(step, name) for step in self.history] for name in Step.__dataclass_fields__})

    def plot(self, ax: Any | None = None) -> Any:
        """Draw score and bound over time; return the matplotlib Axes.

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
        for name in ("score", "bound"):
            steps = [(step.elapsed_s, value) for step in self.history if (value := getattr(step, name)) is not None]
            if steps:
                steps.append((max(self.elapsed_s, steps[-1][0]), steps[-1][1]))  # both lines end with the search
                ax.step(*zip(*steps, strict=True), where="post", label=name)
        ax.set(xlabel="seconds", ylabel="objective")
        ax.legend()
        return ax

    def _shown(self) -> tuple[str, Facts]:
        plan, end = self.plan, self.termination
        by = plan.provenance.get("solver", "")
        facts = [("score", f"{self.score.total:.6g}")]
        facts += [
            (term.name, f"{term.value:.6g} x {term.weight:.6g} ({term.unit})")
            for term in self.score.terms
            if term.weight or self.score.timed
        ]
        if plan.bound is not None and plan.gap is not None:
            useful = plan.gap < USELESS_GAP
            facts.append(("bound", f"{plan.bound:.6g}, gap {plan.gap:.1%}" if useful else "no useful one"))
        load = self.score.max_load
        facts.append(("busiest GPU", f"{load.mean():.4f} times its fair share, {load.max():.4f} in the worst layer"))
        ended = end.reason if end.limit is None else f"{end.reason}, ended by: {end.limit.replace('_', ' ')}"
        facts.append(("search", f"{ended}; {self.elapsed_s:.1f} s, {len(self.history)} steps"))
        if plan.warnings:
            more = len(plan.warnings) - 1
            facts.append(("warning", plan.warnings[0] + (f" ({more} more)" if more else "")))
        sizes = f"{len(plan.layer_ids)} layers of {plan.num_experts} experts on {plan.num_gpus} GPUs"
        return f"Plan by {by}: {sizes}, {plan.slots_per_gpu} slots each", facts
