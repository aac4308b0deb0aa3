"""Answers about failures."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

__all__ = ["SurvivalAnswer"]


class SurvivalAnswer(BaseModel):
    """What a plan survives; as `moe-placement survive --json` gives it."""

    survival: dict[str, Any] = Field(description="Whether it survives, the proof, or the failing set.")
    degraded: list[dict[str, Any]] = Field(
        description="For each unit that may fail: experts that are lost, whether a plan is left, and what is loaded; "
        "with `plans`, that plan, a plan file's content."
    )
    schedule: list[dict[str, Any]] | None = Field(
        default=None, description="After each event of the schedule; null without one."
    )
