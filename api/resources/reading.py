"""How clients say that a trace is to be read, where they send it in parts or name a file to fetch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.resources.schemas import INT64, MAX_ID, MAX_LAYERS, LayerId, Name, Strict, Tags
from traces.support.words import Beyond, Phase

__all__ = ["ImportBody", "UploadBody"]


class ReadingBody(Strict):
    """How to read a file that does not say everything itself; see the parameters of `POST /v1/traces`."""

    format: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    num_experts: Annotated[int, Field(ge=1, le=MAX_ID)] | None = None
    layer_ids: Annotated[list[LayerId], Field(min_length=1, max_length=MAX_LAYERS)] | None = None
    layers: Annotated[list[LayerId], Field(min_length=1, max_length=MAX_LAYERS)] | None = None
    top_k: Annotated[int, Field(ge=1, le=MAX_ID)] | None = None
    model_layers: Annotated[int, Field(ge=1, le=100_000)] | None = None
    first_moe_layer: Annotated[int, Field(ge=0, le=100_000)] | None = None
    moe_layers: Annotated[list[LayerId], Field(min_length=1, max_length=MAX_LAYERS)] | None = None
    drop_dummy_rows: Literal[True] | None = None
    ids_beyond_experts: Beyond | None = None
    layer_base: Annotated[int, Field(ge=0, le=1)] | None = None
    phase: Phase | None = None

    @property
    def hints(self) -> dict[str, Any]:
        """What is given, as `traces.load` takes it."""
        return self.model_dump(include=set(ReadingBody.model_fields), exclude_none=True)


class UploadBody(ReadingBody):
    """The beginning of an upload in parts."""

    name: Name | None = Field(default=None, description="Name to show, such as the file's.")
    tags: Tags = Field(default=[], description="Words to find it by.")
    bytes: Annotated[int, Field(ge=1, le=INT64)] | None = Field(
        default=None, description="Size of the whole file, if it is known; the last part completes it."
    )


class ImportBody(ReadingBody):
    """A file for the service to fetch."""

    source: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="Absolute path on the service's machine, or an address, that the operator allows."
    )
    name: Name | None = Field(default=None, description="Name to show, such as the file's.")
    tags: Tags = Field(default=[], description="Words to find it by.")
