"""The shape of a request for a simulation: the declaration of the library, and what the service keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Field, Tag

from api.resources.declared import body_model
from api.resources.schemas import Name, PlanFile, PlanId, Strict, Tags, TopologyField, TraceId, form
from solvers.policies.request import PolicyRequest

__all__ = ["KEPT", "SERVICE", "SeriesId", "SimulationBody"]

KEPT = frozenset({"topology", "model", "plan"})  # declared here: what the service keeps, models by name
SERVICE = frozenset({"series", "trace", "name", "tags"})  # what the service adds
SeriesId = Annotated[str, Field(pattern="^series_[0-9a-f]{32}$", examples=["series_" + "0" * 32])]

if TYPE_CHECKING:

    class SimulationFields(Strict):
        """Whose fields are made from the declaration of `PolicyRequest`."""

        def __init__(self, **fields: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

else:
    SimulationFields = body_model(PolicyRequest, Strict, KEPT)


class SimulationBody(SimulationFields):
    """A request for a simulation of policies: on a series, whose windows are as they are, or on a trace to cut."""

    series: SeriesId | None = Field(default=None, description="Series of at least two windows; or give a trace.")
    trace: TraceId | None = Field(
        default=None, description="In place of a series: tokens to cut into windows, or counts of several dumps."
    )
    plan: (
        Annotated[
            Annotated[PlanId, Tag("<text>")] | Annotated[PlanFile, Tag("<object>")],
            Discriminator(form),
        ]
        | None
    ) = Field(default=None, description="Plan that runs at first, by id or whole; the engine's layout by default.")
    model: Name | None = Field(
        default=None, description="Name of a model: deepseek-v3, qwen3-235b-a22b, gpt-oss-120b and others."
    )
    topology: TopologyField | None = None
    name: Name | None = Field(default=None, description="Name to show.")
    tags: Tags = Field(default=[], description="Words to find it by.")
