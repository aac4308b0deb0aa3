"""What the answers of plans and fronts have in common."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.problems import Problem
from api.resources.answers import time_of, time_or_none
from api.store.rows import PlanRow

__all__ = ["SearchState"]


class SearchState(BaseModel):
    """How a search goes."""

    id: str
    name: str | None
    tags: list[str]
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    cancel_requested: bool
    trace: str
    request: dict[str, Any] = Field(description="The request, with its defaults.")
    attempt: int = Field(description="How often a search was begun; above 1 after a restart or a crash.")
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    elapsed_s: float | None
    warnings: list[str]
    error: Problem | None = Field(description="Why the search has failed.")

    @staticmethod
    def fields_of(row: PlanRow) -> dict[str, Any]:
        """Return these fields for a row of the store."""
        return {
            "id": row.id,
            "name": row.name,
            "tags": row.tags,
            "status": row.status,
            "cancel_requested": row.cancel_requested,
            "trace": row.request["trace"],
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
