"""Rows of the store, as the rest of the service sees them; a client imports them without a database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from placement.plan.termination import gap_of

__all__ = [
    "ACTIVE",
    "ConflictError",
    "Created",
    "KeyRow",
    "PlanRow",
    "SeriesRow",
    "SeriesWindowRow",
    "TopologyRow",
    "Totals",
    "TraceRow",
    "UploadRow",
]

ACTIVE = ("queued", "running")


@dataclass(frozen=True, kw_only=True)
class TraceRow:
    """A trace; `facts` is what `api.resources.traces.inspection` found out."""

    seq: int
    tenant: str
    id: str
    name: str | None
    tags: list[str]
    created_at: float
    bytes: int
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TopologyRow:
    """A stored topology; `content` is a shorthand or a topology file."""

    seq: int
    tenant: str
    id: str
    name: str | None
    tags: list[str]
    created_at: float
    content: Any


@dataclass(frozen=True, kw_only=True)
class SeriesRow:
    """A series; `axes` has kind, layer_ids, num_experts and top_k of its windows, None as long as there is none."""

    seq: int
    tenant: str
    id: str
    name: str | None
    tags: list[str]
    alpha: float
    axes: dict[str, Any] | None
    created_at: float
    updated_at: float


@dataclass(frozen=True, kw_only=True)
class SeriesWindowRow:
    """A window of a series, but for its loads; `name` is that of the trace, `time` what the client said."""

    number: int
    trace_id: str
    name: str | None
    time: float | None
    added_at: float
    drift: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class UploadRow:
    """A trace that arrives in parts."""

    seq: int
    tenant: str
    id: str
    name: str | None
    hints: dict[str, Any]
    bytes: int | None
    created_at: float
    expires_at: float


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """A plan without its documents."""

    seq: int
    tenant: str
    id: str
    kind: str
    name: str | None
    tags: list[str]
    series_length: int | None
    replaces: str | None
    request: dict[str, Any]
    status: str
    cancel_requested: bool
    revision: int
    attempt: int
    created_at: float
    updated_at: float
    started_at: float | None
    finished_at: float | None
    elapsed_s: float | None
    score: float | None
    bound: float | None
    termination: dict[str, Any] | None
    error: dict[str, Any] | None
    warnings: list[str]

    @property
    def finished(self) -> bool:
        """Whether the plan will not change any more."""
        return self.status not in ACTIVE

    @property
    def gap(self) -> float | None:
        """``(score - bound) / score``; None where one is unknown."""
        return gap_of(self.score, self.bound)


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """What is known of a key; not the key."""

    tenant: str
    id: str
    name: str | None
    scopes: list[str]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None

    def valid_at(self, now: float) -> bool:
        """Whether the key opens anything."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What the service has of all tenants together; the same bytes of two tenants are one blob.

    `waiting_since` is when the plan that waits longest was queued; None if none waits.
    """

    plans: dict[str, int]
    waiting_since: float | None
    blobs: int
    blob_bytes: int
    open_uploads: int


@dataclass(frozen=True, kw_only=True)
class Created:
    """A plan, and whether this request made it (or an earlier one with the same idempotency key)."""

    row: PlanRow
    new: bool


class ConflictError(Exception):
    """The state of the store does not allow the change; `slug` is that of the problem."""

    def __init__(self, slug: str, detail: str) -> None:
        super().__init__(detail)
        self.slug = slug
        self.detail = detail
