"""The one place that turns a map of a problem's slots into a plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem, lower_bound, score

__all__ = ["make_plan", "plan_of"]


def make_plan(problem: Problem, table: npt.NDArray[np.integer[Any]]) -> Plan:
    """Wrap a map (L, S) of a problem as a plan with its score and the instant bound, without provenance of a solver."""
    return plan_of(problem, table, score=score(problem, table).total, bound=lower_bound(problem))


def plan_of(problem: Problem, table: npt.NDArray[np.integer[Any]], **fields: Any) -> Plan:
    """Return the plan of a map (L, S) of a problem; `fields` are those of `Plan` that the problem does not tell."""
    return problem.plan(table, **fields)
