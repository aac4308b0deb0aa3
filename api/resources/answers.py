"""The shapes of answers, made from what the store holds."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

if TYPE_CHECKING:  # a client has neither the web server nor the database
    from starlette.responses import Response

    from api.store.keys import KeyRow
    from api.store.rows import PlanRow, TopologyRow, TraceRow, UploadRow

__all__ = [
    "Affinity",
    "Evaluation",
    "Example",
    "ExampleList",
    "FrontList",
    "FrontResource",
    "KeyList",
    "KeyResource",
    "NewKey",
    "PlanList",
    "PlanNews",
    "PlanResource",
    "PlanSummary",
    "Problem",
    "SolverList",
    "SolverResource",
    "TopologyList",
    "TopologyPreset",
    "TopologyResource",
    "TraceList",
    "TraceResource",
    "UploadResource",
    "ValidPlan",
    "json_response",
]


class ProblemItem(BaseModel):
    """One broken rule."""

    code: str = Field(description="Stable name of the rule.")
    pointer: str = Field(description="JSON pointer into the body; `?name` for a query parameter; a place in a trace.")
    detail: str
    remedy: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Address of a text on this type of problem.")
    title: str
    status: int
    detail: str
    errors: list[ProblemItem] = Field(description="Every violation that was found.")


class TraceResource(BaseModel):
    """An uploaded trace."""

    id: str = Field(description="SHA-256 of the uploaded bytes.")
    name: str | None
    tags: list[str]
    created_at: datetime
    bytes: int
    kind: Literal["trace", "counts", "profile"] = Field(description="Tokens, counts per expert, or a saved profile.")
    format: str
    num_tokens: int | None = Field(description="null for counts.")
    layer_ids: list[int]
    num_experts: int
    top_k: int | None = Field(description="null for counts.")
    columns: list[str] = Field(description="Optional columns that are present.")
    notes: list[str] = Field(description="What was inferred or left out on reading.")

    @classmethod
    def of(cls, row: TraceRow) -> TraceResource:
        """Show a row of the store."""
        names = ("kind", "format", "num_tokens", "layer_ids", "num_experts", "top_k", "columns", "notes")
        return cls(
            id=row.id,
            name=row.name,
            tags=row.tags,
            created_at=datetime.fromtimestamp(row.created_at, UTC),
            bytes=row.bytes,
            **{name: row.facts[name] for name in names},
        )


class TraceList(BaseModel):
    """A page of traces, the newest first."""

    items: list[TraceResource]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one.")


class Affinity(BaseModel):
    """Loads of a trace, and the affinity of two consecutive layers."""

    trace: str
    layer_id: int | None = Field(description="First layer of the pair; null without affinity.")
    next_layer_id: int | None
    tokens: int | None = Field(description="Tokens that were counted; null for counts.")
    num_experts: int
    experts_per_cell: int = Field(description="Experts next to each other that share a cell; the last may have fewer.")
    layers_per_row: int = Field(description="Layers next to each other that share a row of the load.")
    layer_ids: list[int] = Field(description="First layer of each row of the load.")
    load: list[list[float]] = Field(description="Assignments by layer (rows) and expert (cells).")
    affinity: list[list[int]] | None = Field(
        description="Pairs (token, expert in `layer_id`, expert in `next_layer_id`); null for counts and single layers."
    )
    notes: list[str]


class UploadResource(BaseModel):
    """An upload in parts."""

    id: str
    name: str | None
    offset: int = Field(description="Bytes that have arrived and are safe; the next part begins there.")
    bytes: int | None = Field(description="Size of the whole file, if it was told.")
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, row: UploadRow, offset: int) -> UploadResource:
        """Show a row of the store."""
        return cls(
            id=row.id,
            name=row.name,
            offset=offset,
            bytes=row.bytes,
            created_at=datetime.fromtimestamp(row.created_at, UTC),
            expires_at=datetime.fromtimestamp(row.expires_at, UTC),
        )


class Termination(BaseModel):
    """Why the search stopped, apart from how good the plan is."""

    reason: Literal["optimal", "feasible", "infeasible", "no_plan"]
    limit: Literal["time", "work", "gap", "no_improvement", "cancelled"] | None
    detail: str
    deterministic: bool


class PlanSummary(BaseModel):
    """A plan without its map."""

    id: str
    name: str | None
    tags: list[str]
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    cancel_requested: bool
    trace: str
    request: dict[str, Any] = Field(description="The request, with its defaults.")
    attempt: int = Field(description="How often a search was begun; above 1 after a restart or a crash.")
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    elapsed_s: float | None
    score: float | None = Field(description="Objective value of the best plan so far.")
    bound: float | None = Field(description="Value that no plan can beat; null where unknown.")
    gap: float | None = Field(description="(score - bound) / score; null where no bound is known.")
    termination: Termination | None
    warnings: list[str]
    error: Problem | None = Field(description="Why the plan has failed.")

    @classmethod
    def fields_of(cls, row: PlanRow) -> dict[str, Any]:
        """Return the fields for a row of the store."""
        return {
            "id": row.id,
            "name": row.name,
            "tags": row.tags,
            "status": row.status,
            "cancel_requested": row.cancel_requested,
            "trace": row.request["trace"],
            "request": row.request,
            "attempt": row.attempt,
            "created_at": _time(row.created_at),
            "updated_at": _time(row.updated_at),
            "started_at": _time(row.started_at),
            "finished_at": _time(row.finished_at),
            "elapsed_s": row.elapsed_s,
            "score": row.score,
            "bound": row.bound,
            "gap": row.gap,
            "termination": row.termination,
            "warnings": row.warnings,
            "error": row.error,
        }


class PlanResource(PlanSummary):
    """A plan: how its search goes, and the best plan so far."""

    plan: dict[str, Any] | None = Field(description="The plan file's content; null as long as there is no plan.")
    summary: dict[str, Any] | None = Field(
        description="Figures of the plan and of the contiguous plan, on the part that was fitted and the part held out."
    )


class PlanList(BaseModel):
    """A page of plans, the newest first."""

    items: list[PlanSummary]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one.")


class ValidPlan(BaseModel):
    """A request that would be queued."""

    request: dict[str, Any] = Field(description="The request, with its defaults.")


class PlanNews(BaseModel):
    """What an event tells: the state of a plan after a change."""

    revision: int = Field(description="Number of the change; the event's id.")
    at: datetime
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    cancel_requested: bool
    attempt: int
    score: float | None
    bound: float | None
    gap: float | None
    elapsed_s: float | None


class Evaluation(BaseModel):
    """What the tokens of the trace do under the plan; see `placement.Evaluation`."""

    execution: str
    dedup: str | None
    ownership: str | None
    replica_policy: str
    tokens: int
    cross_gpu_fraction: float
    cross_node_fraction: float
    fanout_gpus: float
    fanout_nodes: float
    remote_gpus: float | None
    remote_nodes: float | None
    traffic: float
    traffic_unit: str
    imbalance_max_over_mean: float
    balancedness_vllm: float
    imbalance_trtllm: float
    imbalance_optimal_split: float | None = Field(description="Null for plans without replicas.")
    activated_experts: float | None = Field(
        description="Null unless the plan was made for activated experts, or a decode_batch was given."
    )
    per_layer: dict[str, list[Any]]
    traffic_matrix: list[list[int]]
    hottest_links: list[dict[str, Any]]
    gpu_load: list[list[int]]
    notes: list[str] = Field(description="What was inferred on reading the trace, or which tokens stand for the rest.")


class KeyResource(BaseModel):
    """An API key, without the key."""

    id: str
    name: str | None
    tenant: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")

    @classmethod
    def of(cls, row: KeyRow) -> KeyResource:
        """Show a row of the store."""
        return cls(**cls.fields_of(row))

    @classmethod
    def fields_of(cls, row: KeyRow) -> dict[str, Any]:
        """Return the fields for a row of the store."""
        times = {
            "created_at": row.created_at,
            "expires_at": row.expires_at,
            "revoked_at": row.revoked_at,
            "last_used_at": row.last_used_at,
        }
        known = {"id": row.id, "name": row.name, "tenant": row.tenant, "scopes": row.scopes}
        return known | {name: _time(value) for name, value in times.items()}


class NewKey(KeyResource):
    """A key that was just made."""

    key: str = Field(description="The key itself. It is shown this once and kept nowhere.")


class KeyList(BaseModel):
    """All keys of the tenant."""

    items: list[KeyResource]


class SolverResource(BaseModel):
    """A solver."""

    name: str
    summary: str
    options: dict[str, Any] = Field(description="JSON Schema of the options.")


class SolverList(BaseModel):
    """All solvers."""

    items: list[SolverResource]


class TopologyPreset(BaseModel):
    """A known machine."""

    name: str = Field(description="Write NAME:NODES as a plan's topology.")
    text: str
    gpus_per_node: int
    intra_node: dict[str, float]
    inter_node: dict[str, float]
    memory_gb: float
    gpus_per_host: int


class TopologyResource(BaseModel):
    """A stored topology."""

    id: str = Field(description="Write it as a plan's topology.")
    name: str | None
    tags: list[str]
    created_at: datetime
    topology: str | dict[str, Any] = Field(description="Shorthand, or the content of a topology file.")
    num_nodes: int
    num_gpus: int

    @classmethod
    def of(cls, row: TopologyRow, *, num_nodes: int, num_gpus: int) -> TopologyResource:
        """Show a row of the store."""
        return cls(
            id=row.id,
            name=row.name,
            tags=row.tags,
            created_at=datetime.fromtimestamp(row.created_at, UTC),
            topology=row.content,
            num_nodes=num_nodes,
            num_gpus=num_gpus,
        )


class TopologyList(BaseModel):
    """Stored topologies, the newest first; and the machines and shorthands that everybody has."""

    items: list[TopologyResource]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one.")
    presets: list[TopologyPreset]
    shorthands: dict[str, str]


class FrontResource(BaseModel):
    """A front: how its searches go, and its points once they have ended."""

    id: str
    name: str | None
    tags: list[str]
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    cancel_requested: bool
    trace: str
    request: dict[str, Any] = Field(description="The request, with its defaults.")
    attempt: int
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    elapsed_s: float | None
    warnings: list[str]
    error: Problem | None = Field(description="Why the front has failed.")
    front: dict[str, Any] | None = Field(
        description="As `moe-placement front --json` gives it: the points with their figures, fitted and held out, and "
        "the knee; null before the end."
    )

    @classmethod
    def of(cls, row: PlanRow, front: dict[str, Any] | None) -> FrontResource:
        """Show a row of the store."""
        known = PlanSummary.fields_of(row)
        return cls(front=front, **{name: known[name] for name in cls.model_fields if name in known})


class FrontList(BaseModel):
    """A page of fronts without their points, the newest first."""

    items: list[FrontResource]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one.")


class Example(BaseModel):
    """A request that can be sent as it is."""

    title: str
    method: str
    path: str
    body: dict[str, Any]


class ExampleList(BaseModel):
    """Examples, from simple to special. ``TRACE`` stands for the id of a trace, ``PLAN`` for that of a plan."""

    items: list[Example]


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def json_response(
    content: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None, strong_etag: bool = False
) -> Response:
    """Return a resource as a response; with `strong_etag`, tagged with the digest of its bytes."""
    from starlette.responses import Response

    body = content.model_dump_json().encode()
    fields = dict(headers or {})
    if strong_etag:
        fields["ETag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Response(body, status, fields, "application/json")


def loads(text: str | None) -> dict[str, Any] | None:
    """Read a stored JSON document."""
    content: dict[str, Any] | None = None if text is None else json.loads(text)
    return content
