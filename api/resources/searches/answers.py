"""What the answers of all that is queued have in common."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.problems import Problem
from api.resources.answers import time_of, time_or_none
from api.store.rows import PlanRow

__all__ = ["JobState", "News", "SearchState"]


class JobState(BaseModel):
    """How something goes that was queued."""

    id: str
    name: str | None
    tags: list[str]
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    cancel_requested: bool
    request: dict[str, Any] = Field(description="The request, with its defaults.")
    attempt: int = Field(description="How often it was begun; above 1 after a restart or a crash.")
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    elapsed_s: float | None
    warnings: list[str]
    error: Problem | None = Field(description="Why it has failed.")

    @staticmethod
    def fields_of(row: PlanRow) -> dict[str, Any]:
        """Return these fields for a row of the store."""
        return {
            "id": row.id,
            "name": row.name,
            "tags": row.tags,
            "status": row.status,
            "cancel_requested": row.cancel_requested,
            "request": row.request,
            "attempt": row.attempt,
            "created_at": time_of(row.created_at),
            "updated_at": time_of(row.updated_at),
            "started_at": time_or_none(row.started_at),
            "finished_at": time_or_none(row.finished_at),
            "elapsed_s": row.elapsed_s,
            "warnings": row.warnings,
            "error": row.error,
        }


class SearchState(JobState):
    """How a search on a trace goes."""

    trace: str

    @staticmethod
    def fields_of(row: PlanRow) -> dict[str, Any]:
        """Return these fields for a row of the store."""
        return {"trace": row.request["trace"], **JobState.fields_of(row)}


class News(BaseModel):
    """What an event tells: the state after a change."""

    revision: int = Field(description="Number of the change; the event's id.")
    at: datetime
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    cancel_requested: bool
    attempt: int
    score: float | None
    bound: float | None
    gap: float | None
    elapsed_s: float | None
