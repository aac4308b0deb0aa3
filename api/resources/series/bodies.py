"""Bodies of requests about series."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from api.resources.schemas import Finite, Name, Strict, Tags, TraceId

__all__ = ["SeriesBody", "WindowBody"]


class SeriesBody(Strict):
    """A series to begin, without windows."""

    name: Name | None = Field(default=None, description="Name to show.")
    tags: Tags = Field(default=[], description="Words to find it by.")
    alpha: Annotated[float, Field(ge=0.001, le=0.5, allow_inf_nan=False)] = Field(
        default=0.05, description="Rate of false alarms of its test for drift, where nothing has changed."
    )


class WindowBody(Strict):
    """A window to add: what was recorded next."""

    trace: TraceId = Field(description="A stored trace, counts or a profile, of the kind and model of those before.")
    time: Finite | None = Field(
        default=None,
        description="When it was recorded, not before the last one: seconds since 1970, a step or an iteration. All "
        "windows of a series have one, or none.",
    )
