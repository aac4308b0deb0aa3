"""The shape of a request about residency: the declaration of the library, and what the service keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from api.resources.declared import body_model
from api.resources.schemas import Name, Strict, TraceId
from solvers.residency.request import ResidencyRequest

__all__ = ["KEPT", "ResidencyBody"]

KEPT = frozenset({"model"})  # declared here: models by name and never by a path

if TYPE_CHECKING:

    class ResidencyFields(Strict):
        """Whose fields are made from the declaration of `ResidencyRequest`."""

        def __init__(self, **fields: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

else:
    ResidencyFields = body_model(ResidencyRequest, Strict, KEPT)


class ResidencyBody(ResidencyFields):
    """A request about residency."""

    trace: TraceId = Field(description="Trace to fit and to judge by.")
    model: Name | None = Field(
        default=None, description="Name of a model: deepseek-v3, qwen3-235b-a22b, gpt-oss-120b and others."
    )
