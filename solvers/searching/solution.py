"""What a search returns: the plan, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass

from placement import Plan, Score, Termination

__all__ = ["NoPlanError", "Solution", "Step"]


class NoPlanError(Exception):
    """A search that ended without any plan; `termination` says why."""

    def __init__(self, termination: Termination) -> None:
        self.termination = termination
        super().__init__(termination.detail)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A point of the search's history: the best score and bound after `elapsed_s` seconds."""

    elapsed_s: float
    solver: str
    score: float | None
    bound: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """Result of `solve`.

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
    elapsed_s: float
    history: tuple[Step, ...]
