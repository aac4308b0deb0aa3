"""The shape of a request for a mixture: the declaration of the library, and what the service keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from api.resources.declared import body_model
from api.resources.schemas import Name, Scalar, Strict, Tags, TopologyField, TraceId
from solvers.mixtures.request import MAX_DOMAINS, MixtureRequest

__all__ = ["KEPT", "SERVICE", "MixtureBody"]

KEPT = frozenset({"topology", "model", "options"})  # declared here: what the service keeps, models by name
SERVICE = frozenset({"traces", "name", "tags"})  # what the service adds

if TYPE_CHECKING:

    class MixtureFields(Strict):
        """Whose fields are made from the declaration of `MixtureRequest`."""

        def __init__(self, **fields: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

else:
    MixtureFields = body_model(MixtureRequest, Strict, KEPT)


class MixtureBody(MixtureFields):
    """A request for a plan for several domains."""

    traces: Annotated[list[TraceId], Field(min_length=1, max_length=MAX_DOMAINS)] = Field(
        description="A trace per domain, called by its name without the ending; or one, which is split by its column "
        "`data_source`."
    )
    topology: TopologyField
    model: Name | None = Field(
        default=None, description="Name of a model: deepseek-v3, qwen3-235b-a22b, gpt-oss-120b and others."
    )
    options: dict[Annotated[str, Field(max_length=100)], Scalar] = Field(
        default={}, description="Parameters of the solver; GET /v1/solvers has their JSON Schema."
    )
    name: Name | None = Field(default=None, description="Name to show.")
    tags: Tags = Field(default=[], description="Words to find it by.")
