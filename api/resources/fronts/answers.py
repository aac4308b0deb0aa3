"""Fronts as answers show them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from api.resources.answers import loads
from api.resources.searches.answers import SearchState
from api.store.rows import PlanRow

__all__ = ["FrontList", "FrontResource"]


class FrontResource(SearchState):
    """A front: how its searches go, and its points once they have ended."""

    front: dict[str, Any] | None = Field(
        description="As `moe-placement front --json` gives it: the points with their figures, fitted and held out, and "
        "the knee; null before the end."
    )

    @classmethod
    def of(cls, row: PlanRow, points: str | None = None) -> FrontResource:
        """Show a row of the store, with the text of its points."""
        content = loads(points)
        return cls(**cls.fields_of(row), front=None if content is None else content["front"])


class FrontList(BaseModel):
    """A page of fronts without their points, the newest first."""

    items: list[FrontResource]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one.")
