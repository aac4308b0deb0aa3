"""Findings on a trace as answers show them."""

from __future__ import annotations

from pydantic import BaseModel, Field

from traces.doctor.diagnosis import Code, Severity

__all__ = ["FindingResource", "FindingsResource"]


class FindingResource(BaseModel):
    """One thing that is wrong with a recording, or worth knowing."""

    code: Code
    severity: Severity = Field(description="error: nothing can be planned from it; warning: a plan is worse for it.")
    detail: str = Field(description="Where, how much, and what it does to a plan.")
    remedy: str = Field(description="What to do.")


class FindingsResource(BaseModel):
    """What is wrong with a recording, the worst first."""

    trace: str
    findings: list[FindingResource]
