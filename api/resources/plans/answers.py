"""Plans as answers show them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from api.resources.answers import loads
from api.resources.searches.answers import SearchState
from api.store.rows import PlanRow

__all__ = ["PlanList", "PlanResource", "PlanSummary", "Termination", "ValidPlan"]


class Termination(BaseModel):
    """Why the search stopped, apart from how good the plan is."""

    reason: Literal["optimal", "feasible", "infeasible", "no_plan"]
    limit: Literal["time", "work", "gap", "no_improvement", "cancelled"] | None
    detail: str
    deterministic: bool


class PlanSummary(SearchState):
    """A plan without its map."""

    replaces: str | None = Field(description="Plan that this one is to replace, as the request says; it may be gone.")
    score: float | None = Field(description="Objective value of the best plan so far.")
    bound: float | None = Field(description="Value that no plan can beat; null where unknown.")
    gap: float | None = Field(description="(score - bound) / score; null where no bound is known.")
    termination: Termination | None

    @classmethod
    def of(cls, row: PlanRow) -> PlanSummary:
        """Show a row of the store."""
        return cls(**cls.fields_of(row), **_figures(row))


class PlanResource(PlanSummary):
    """A plan: how its search goes, and the best plan so far."""

    plan: dict[str, Any] | None = Field(description="The plan file's content; null as long as there is no plan.")
    summary: dict[str, Any] | None = Field(
        description="Figures of the plan and of the `baseline`, on the part that was fitted and the part held out; "
        "`text` has them for people."
    )

    @classmethod
    def of_documents(cls, row: PlanRow, plan: str | None, summary: str | None) -> PlanResource:
        """Show a row of the store with the texts of its plan file and summary."""
        return cls(**cls.fields_of(row), **_figures(row), plan=loads(plan), summary=loads(summary))


class PlanList(BaseModel):
    """A page of plans, the newest first."""

    items: list[PlanSummary]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one.")


class ValidPlan(BaseModel):
    """A request that would be queued."""

    request: dict[str, Any] = Field(description="The request, with its defaults.")


def _figures(row: PlanRow) -> dict[str, Any]:
    return {
        "replaces": row.replaces,
        "score": row.score,
        "bound": row.bound,
        "gap": row.gap,
        "termination": row.termination,
    }
