"""Series as answers show them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.resources.answers import time_of
from api.store.rows import SeriesRow, SeriesWindowRow

__all__ = ["DriftAnswer", "SeriesList", "SeriesLoads", "SeriesResource", "SeriesSummary", "SeriesWindow", "WindowLoads"]


class DriftAnswer(BaseModel):
    """Whether loads have changed since the windows before, or differ as sampling alone makes them differ."""

    size: float = Field(
        description="Share of the assignments that would have to go to other experts, mean over layers."
    )
    noise: float | None = Field(description="What size is on average where nothing has changed; null if not known.")
    p_value: float | None
    drifted: bool | None = Field(description="Whether p_value is at most alpha; null: too little was recorded to tell.")
    alpha: float = Field(description="Rate of false alarms where nothing has changed.")
    layers_drifted: int = Field(description="Layers that have drifted; alpha is the rate of any false one among all.")
    largest_layer_size: float
    method: Literal["permutation", "prediction", "none"] = Field(
        description="permutation: whole sequences, or dumps, are exchanged with the window before; prediction: the "
        "distance from all windows before is held against theirs."
    )


class SeriesWindow(BaseModel):
    """A window of a series."""

    number: int = Field(description="From 0, in order of time.")
    trace: str
    name: str | None = Field(description="Of the trace.")
    time: float | None = Field(description="As it was given: seconds since 1970, a step or an iteration.")
    added_at: datetime
    drift: DriftAnswer | None = Field(description="Null for the first window.")

    @classmethod
    def of(cls, row: SeriesWindowRow) -> SeriesWindow:
        """Show a row of the store."""
        drift = None if row.drift is None else DriftAnswer.model_validate(row.drift)
        return cls(
            number=row.number,
            trace=row.trace_id,
            name=row.name,
            time=row.time,
            added_at=time_of(row.added_at),
            drift=drift,
        )


class SeriesSummary(BaseModel):
    """A series without its windows."""

    id: str
    name: str | None
    tags: list[str]
    created_at: datetime
    updated_at: datetime = Field(description="When the last window came.")
    alpha: float
    kind: Literal["trace", "counts", "profile"] | None = Field(description="Of all windows; null without any.")
    layer_ids: list[int] | None
    num_experts: int | None
    top_k: int | None
    num_windows: int

    @classmethod
    def fields_of(cls, row: SeriesRow, num_windows: int) -> dict[str, Any]:
        """Return these fields for a row of the store."""
        axes = row.axes or dict.fromkeys(("kind", "layer_ids", "num_experts", "top_k"))
        return {
            "id": row.id,
            "name": row.name,
            "tags": row.tags,
            "created_at": time_of(row.created_at),
            "updated_at": time_of(row.updated_at),
            "alpha": row.alpha,
            "num_windows": num_windows,
            **axes,
        }


class SeriesResource(SeriesSummary):
    """A series."""

    windows: list[SeriesWindow]

    @classmethod
    def of(cls, row: SeriesRow, windows: Sequence[SeriesWindowRow]) -> SeriesResource:
        """Show a row of the store with those of its windows."""
        return cls(**cls.fields_of(row, len(windows)), windows=[SeriesWindow.of(window) for window in windows])


class SeriesList(BaseModel):
    """A page of series without their windows, the newest first."""

    items: list[SeriesSummary]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one.")


class WindowLoads(BaseModel):
    """What was counted in a window."""

    number: int
    shares: list[float] = Field(description="Share of the layer's assignments by expert.")
    hottest_share: float = Field(description="Largest share that an expert has of its layer, mean over layers.")
    imbalance: float | None = Field(
        description="Busiest GPU over the mean under the plan, mean over layers; null without a plan."
    )


class SeriesLoads(BaseModel):
    """Loads of the latest windows of a series."""

    series: str
    layer_id: int
    plan: str | None
    windows: list[WindowLoads]
