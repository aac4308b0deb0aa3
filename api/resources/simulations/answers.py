"""Simulations as answers show them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from api.resources.answers import loads
from api.resources.searches.answers import JobState
from api.resources.series.answers import DriftAnswer
from api.store.rows import PlanRow

__all__ = ["SimulationList", "SimulationResource", "SimulationSummary"]


class PolicyWindow(BaseModel):
    """One window under a policy."""

    window: int
    name: str
    step_ms: float = Field(description="Of a forward pass, on the window's own tokens or counts.")
    ms: float = Field(description="Of the window: its passes, and before them the re-plan.")
    replanned: bool
    moved_experts: int
    moved_bytes: int
    cost_ms: float
    net_ms: float | None = Field(description="What the re-plan gained up to the next one, less its cost.")
    reason: str


class PolicyRun(BaseModel):
    """A policy over the whole series."""

    name: Literal["never", "every_window", "eplb_every_window", "on_drift", "on_gain", "oracle"]
    total_ms: float = Field(description="Of all windows, with moves and stalls.")
    replans: int
    moved_experts: int
    moved_bytes: int
    unpaid: int = Field(description="Re-plans that gained less than they cost.")
    per_window: list[PolicyWindow]


class ForecastScore(BaseModel):
    """How well a way to forecast did, one window ahead."""

    name: str
    error: float
    windows: int
    beats_baselines: bool


class EngineSetting(BaseModel):
    """What an engine's own re-planning would cost on the series."""

    engine: str
    options: str
    total_ms: float
    replans: int
    recommended: bool


class Now(BaseModel):
    """What the gate says after the last window."""

    replan: bool
    reason: str


class SimulationAnswer(BaseModel):
    """Policies side by side; see `solvers.Simulation`."""

    windows: int
    window_passes: int
    policies: list[PolicyRun]
    drift: list[DriftAnswer] = Field(description="From each window to the next.")
    forecasts: list[ForecastScore]
    engine_settings: list[EngineSetting]
    now: Now
    notes: list[str]


class SimulationSummary(JobState):
    """A simulation without what it has found."""

    series: str | None
    trace: str | None
    series_length: int | None = Field(description="Windows that the series had when this was asked for.")

    @classmethod
    def state_of(cls, row: PlanRow) -> dict[str, Any]:
        """Return these fields for a row of the store."""
        own = {name: row.request[name] for name in ("series", "trace")}
        return cls.fields_of(row) | own | {"series_length": row.series_length}

    @classmethod
    def of(cls, row: PlanRow) -> SimulationSummary:
        """Show a row of the store."""
        return cls(**cls.state_of(row))


class SimulationResource(SimulationSummary):
    """A simulation: how it goes, and at the end what each policy would have taken."""

    simulation: SimulationAnswer | None = Field(description="Null before the end.")
    plan: dict[str, Any] | None = Field(description="Plan that the gate would run next, a plan file's content.")

    @classmethod
    def of_documents(cls, row: PlanRow, plan: str | None, summary: str | None) -> SimulationResource:
        """Show a row of the store with the texts of the plan to run next and of the figures."""
        found = None if summary is None else SimulationAnswer.model_validate_json(summary)
        return cls(**cls.state_of(row), simulation=found, plan=loads(plan))


class SimulationList(BaseModel):
    """A page of simulations, the newest first."""

    items: list[SimulationSummary]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one.")
