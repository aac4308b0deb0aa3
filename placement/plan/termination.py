"""Why a search stopped, and how far its plan may be from the best one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Limit", "Reason", "Termination", "gap_of"]

Reason = Literal["optimal", "feasible", "infeasible", "no_plan"]
Limit = Literal["time", "work", "gap", "no_improvement", "cancelled"]


def gap_of(score: float | None, bound: float | None) -> float | None:
    """Return ``(score - bound) / score``; None where one is unknown, 0 where the score is 0."""
    if score is None or bound is None:
        return None
    return max(0.0, (score - bound) / score) if score else 0.0


@dataclass(frozen=True, kw_only=True)
class Termination:
    """Why a search stopped, apart from how good its plan is (after MathOpt's result type).

    Attributes
    ----------
    reason : {"optimal", "feasible", "infeasible", "no_plan"}
        ``optimal``: proven. ``feasible``: keeps every constraint. ``infeasible``: a plan is there, but misses a
        constraint that the detail names. ``no_plan``: there is none.
    limit : {"time", "work", "gap", "no_improvement", "cancelled"} or None
        What ended the search; None if it ran to its end.
    detail : str
    deterministic : bool
        Whether the same seed and limits give the same plan again. A time limit can't promise that.
    """

    reason: Reason
    limit: Limit | None = None
    detail: str = ""
    deterministic: bool = True
