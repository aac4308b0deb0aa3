"""The shape of a request for an advice: the declaration of the library, and what the service keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Field, Tag

from api.resources.declared import body_model
from api.resources.schemas import Name, PlanFile, PlanId, Strict, TraceId, form
from solvers.advising.request import AdviceRequest

__all__ = ["KEPT", "AdviceBody"]

KEPT = frozenset({"plan", "model"})  # declared here: plans by id, models by name and never by a path

if TYPE_CHECKING:

    class AdviceFields(Strict):
        """Whose fields are made from the declaration of `AdviceRequest`."""

        def __init__(self, **fields: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

else:
    AdviceFields = body_model(AdviceRequest, Strict, KEPT)


class AdviceBody(AdviceFields):
    """A request for an advice."""

    trace: TraceId = Field(description="Trace to judge by.")
    model: Name = Field(description="Name of a model: deepseek-v3, qwen3-235b-a22b, gpt-oss-120b and others.")
    plan: (
        Annotated[
            Annotated[PlanId, Tag("<text>")] | Annotated[PlanFile, Tag("<object>")],
            Discriminator(form),
        ]
        | None
    ) = Field(default=None, description="Plan that runs now, by id or whole; the engine's own layout if null.")
