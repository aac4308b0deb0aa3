"""The shapes of requests: strict, every field known, bounded before any array is made from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from api.resources.declared import body_model
from placement.topology.file import MAX_NOTE, MAX_NOTES
from placement.topology.links import MAX_GPUS
from solvers.requests.request import FrontRequest, Request

__all__ = [
    "FrontBody",
    "FrontId",
    "KeyBody",
    "LabelsBody",
    "Name",
    "PlanBody",
    "PlanFile",
    "PlanId",
    "Strict",
    "Tags",
    "TopologyFile",
    "TopologyId",
    "TraceId",
    "form",
]

MAX_ID = 32_767
MAX_LAYERS = 4096
MAX_DEPTH = 16
INT64 = (1 << 63) - 1

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Id = Annotated[int, Field(ge=0, le=MAX_ID)]
LayerId = Annotated[int, Field(ge=0, le=1 << 31)]
Gpus = Annotated[int, Field(ge=1, le=MAX_GPUS)]
Slots = Annotated[int, Field(ge=1, le=MAX_ID)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
TraceId = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$", examples=["sha256:" + "0" * 64])]
TagName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:/-]+$")]
Tags = Annotated[list[TagName], Field(max_length=16)]
TopologyId = Annotated[str, Field(pattern="^topo_[0-9a-f]{32}$", examples=["topo_" + "0" * 32])]
FrontId = Annotated[str, Field(pattern="^front_[0-9a-f]{32}$", examples=["front_" + "0" * 32])]
PlanId = Annotated[str, Field(pattern="^(plan|replan)_[0-9a-f]{32}$", examples=["plan_" + "0" * 32])]


def _scalar(value: Any) -> Any:
    if not isinstance(value, (bool, int, float, str, type(None))):
        raise PydanticCustomError("scalar_type", "Options are numbers, texts, booleans or null")
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite_number", "Numbers must be finite")
    return value


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse nesting that would exhaust the stack of whoever walks through it."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        parts = (item.values() if isinstance(item, dict) else item for item in level)
        level = [inner for part in parts for inner in part if isinstance(inner, (dict, list))]
        if not level:
            return value
    raise PydanticCustomError("too_deep", "The object is nested too deeply")


Version = Annotated[int, Field(ge=1, le=1)]  # a literal 1 would accept true
Scalar = Annotated[Any, AfterValidator(_scalar), WithJsonSchema({"type": ["number", "string", "boolean", "null"]})]
Document = Annotated[dict[str, Any], AfterValidator(_shallow)]


def form(value: Any) -> str:
    """Tell apart the forms of a field, so that only the errors of the form that was sent are reported."""
    return "<text>" if isinstance(value, str) else "<object>"


def form_of_numbers(value: Any) -> str:
    return "<list>" if isinstance(value, list) else "<number>"


Speeds = Annotated[
    Annotated[Positive, Tag("<number>")] | Annotated[list[Positive], Field(max_length=MAX_GPUS), Tag("<list>")],
    Discriminator(form_of_numbers),
]
SlotCounts = Annotated[
    Annotated[Slots, Tag("<number>")] | Annotated[list[Slots], Field(max_length=MAX_GPUS), Tag("<list>")],
    Discriminator(form_of_numbers),
]
NodeSizes = Annotated[
    Annotated[Gpus, Tag("<number>")] | Annotated[list[Gpus], Field(min_length=1, max_length=MAX_GPUS), Tag("<list>")],
    Discriminator(form_of_numbers),
]


class Strict(BaseModel):
    """A body: unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LinkBody(Strict):
    """A tier of links."""

    bandwidth_gb_s: Positive = Field(description="GB/s per GPU and direction.")
    latency_us: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(default=0.0, description="Microseconds.")


Matrix = Annotated[list[Annotated[list[Finite], Field(max_length=MAX_GPUS)]], Field(max_length=MAX_GPUS)]


class TopologyFile(Strict):
    """A topology, as in a topology file."""

    schema_version: Version = 1
    name: Name | None = None
    gpus_per_node: NodeSizes | None = Field(
        default=None, description="GPUs of every node, or a list of the nodes' sizes."
    )
    num_nodes: Gpus | None = Field(default=None, description="Number of nodes, if gpus_per_node is a number.")
    intra_node: LinkBody | None = None
    inter_node: LinkBody | None = None
    rank_cost_matrix: Matrix | None = Field(default=None, description="Cost of a message between each pair of GPUs.")
    bandwidth_gb_s: Matrix | None = Field(default=None, description="GB/s per direction; beside rank_cost_matrix.")
    latency_us: Matrix | None = Field(default=None, description="Microseconds; beside rank_cost_matrix.")
    gpu_speed: Speeds | None = None
    memory_gb: Speeds | None = None
    slots: SlotCounts | None = None
    gpus_per_host: Gpus | None = None
    host_of_gpu: Annotated[list[Annotated[int, Field(ge=0, lt=MAX_GPUS)]], Field(max_length=MAX_GPUS)] | None = None
    notes: Annotated[list[Annotated[str, Field(max_length=MAX_NOTE)]], Field(max_length=MAX_NOTES)] | None = Field(
        default=None, description="What was understood of a description, and what is assumed."
    )


TopologyField = Annotated[
    Annotated[str, Field(min_length=1, max_length=20_000), Tag("<text>")] | Annotated[TopologyFile, Tag("<object>")],
    Discriminator(form),
    Field(
        description="Shorthand (4x8: 4 nodes of 8 GPUs; 8+8+4; PRESET:NODES), the id of a stored topology, or the "
        "content of a topology file.",
        examples=["1x4", "hgx_h100:4"],
    ),
]


KEPT = frozenset({"topology", "options", "start"})  # declared here: what the service keeps, and bounds by type

if TYPE_CHECKING:

    class RequestFields(Strict):
        """Whose fields are made from the declaration of `Request`."""

        def __init__(self, **fields: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    class FrontRequestFields(RequestFields):
        """Whose fields are made from the declaration of `FrontRequest`."""

else:
    RequestFields = body_model(Request, Strict, KEPT)
    FrontRequestFields = body_model(FrontRequest, Strict, KEPT)


class _Asked(Strict):
    """What the service adds to a request."""

    trace: TraceId = Field(description="Trace to plan for.")
    topology: TopologyField
    options: dict[Annotated[str, Field(max_length=100)], Scalar] = Field(
        default={}, description="Parameters of the solver; GET /v1/solvers has their JSON Schema."
    )
    start: PlanId | None = Field(default=None, description="Plan to start from.")
    name: Name | None = Field(default=None, description="Name to show.")
    tags: Tags = Field(default=[], description="Words to find it by.")


class PlanBody(_Asked, RequestFields):
    """A request for a plan. With `time`, milliseconds per forward pass are minimised, in place of hop costs."""

    topology: TopologyField | None = Field(  # type: ignore[assignment]  # a front always needs one
        default=None, description="See a front's; that of the machine in `time` by default."
    )
    replaces: PlanId | None = Field(default=None, description="Plan that this one is to replace: kept beside it.")


class FrontBody(_Asked, FrontRequestFields):
    """A request for a front: many plans at once. Time and work limits are those of all its searches together."""


class LabelsBody(Strict):
    """A change of name or tags; what is left out stays."""

    name: Name | None = Field(default=None, description="Name to show; null takes it away.")
    tags: Tags = Field(default=[], description="Words to find it by, in place of those that it has.")


class PlanFile(Strict):
    """A plan file's content."""

    schema_version: Version
    layer_ids: Annotated[list[LayerId], Field(min_length=1, max_length=MAX_LAYERS)]
    num_experts: Annotated[int, Field(ge=1, le=MAX_ID)]
    num_gpus: Gpus
    gpus_per_node: NodeSizes
    slots_per_gpu: Slots
    physical_to_logical_map: Annotated[
        list[list[Annotated[int, Field(ge=-1, lt=MAX_ID)]]], Field(min_length=1, max_length=MAX_LAYERS)
    ]
    score: Finite | None = None
    bound: Finite | None = None
    gap: Finite | None = None
    termination: Document | None = None
    provenance: Document = {}
    warnings: list[str] = []


class KeyBody(Strict):
    """A request for a key of one's own tenant."""

    name: Name | None = Field(default=None, description="Name to show: what the key is for.")
    scopes: Annotated[list[Literal["read", "write", "admin"]], Field(min_length=1, max_length=3)] = Field(
        default=["read"], description="What it may do; write includes read, admin both."
    )
    days: Annotated[float, Field(gt=0, le=36_500, allow_inf_nan=False)] | None = Field(
        default=None, description="Days that it is valid; until it is revoked if null."
    )
