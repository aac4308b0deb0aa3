"""The shape of a request for a re-plan: the declaration of the library, and what the service keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Field, Tag

from api.resources.declared import body_model
from api.resources.schemas import Name, PlanFile, PlanId, Strict, Tags, TopologyField, TraceId, form
from solvers.replanning.request import ReplanRequest

__all__ = ["KEPT", "ReplanBody"]

KEPT = frozenset({"topology", "model"})  # declared here: what the service keeps, models by name and never by a path

if TYPE_CHECKING:

    class ReplanFields(Strict):
        """Whose fields are made from the declaration of `ReplanRequest`."""

        def __init__(self, **fields: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

else:
    ReplanFields = body_model(ReplanRequest, Strict, KEPT)


class ReplanBody(ReplanFields):
    """A request for a re-plan."""

    running: Annotated[Annotated[PlanId, Tag("<text>")] | Annotated[PlanFile, Tag("<object>")], Discriminator(form)] = (
        Field(description="Plan that runs now, by id or whole.")
    )
    trace: TraceId = Field(description="What was recorded lately.")
    model: Name | None = Field(
        default=None, description="Name of a model: deepseek-v3, qwen3-235b-a22b, gpt-oss-120b and others."
    )
    topology: TopologyField | None = None
    name: Name | None = Field(default=None, description="Name to show.")
    tags: Tags = Field(default=[], description="Words to find it by.")
