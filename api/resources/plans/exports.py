"""Query parameters of exports: the model's layers, and what an engine's file is keyed by."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

__all__ = [
    "FillMissing",
    "FirstMoeLayer",
    "Force",
    "Layer",
    "ModelLayers",
    "MtpLayers",
    "Name",
    "PipelineStages",
    "WithoutMtp",
]

MAX_LAYERS = 10_000
ModelLayers = Annotated[int | None, Query(ge=1, le=MAX_LAYERS, description="Layers of the model, dense ones included.")]
FirstMoeLayer = Annotated[
    int | None, Query(ge=0, le=MAX_LAYERS, description="First layer with experts; with `model_layers`.")
]
MtpLayers = Annotated[
    int | None, Query(ge=0, le=MAX_LAYERS, description="Layers for multi-token prediction; with `model_layers`.")
]
FillMissing = Annotated[bool, Query(description="Give layers that the plan lacks the contiguous layout.")]
Force = Annotated[
    bool, Query(description="Write it even if tokens travel otherwise in the engine than the plan was made for.")
]
WithoutMtp = Annotated[bool, Query(description="The engine runs without multi-token prediction.")]
Layer = Annotated[int | None, Query(ge=0, le=MAX_LAYERS, description="The one layer to write; for `deepspeed`.")]
Name = Annotated[str | None, Query(min_length=1, max_length=200, description="Name in the file; for `hygon`.")]
PipelineStages = Annotated[
    str | None,
    Query(
        pattern=r"^[0-9]{1,6}(,[0-9]{1,6})*$",
        max_length=2000,
        description="Layers of the model in each stage of its pipeline, as 30,31; for `hygon`.",
    ),
]
