"""A map of a problem's slots as a plan, or why there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem, Termination, lower_bound, score

__all__ = ["NoPlanError", "make_plan"]


class NoPlanError(Exception):
    """A search that ended without any plan; `termination` says why."""

    def __init__(self, termination: Termination) -> None:
        self.termination = termination
        super().__init__(termination.detail)


def make_plan(problem: Problem, table: npt.NDArray[np.integer[Any]]) -> Plan:
    """Wrap a map (L, S) of a problem as a plan with its score and the instant bound, without provenance of a solver."""
    return problem.plan(table, score=score(problem, table).total, bound=lower_bound(problem))
