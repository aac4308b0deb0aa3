"""What requests do with the store: traces, plans, idempotency keys. With `api.leases`, the only SQL."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, Text, cast, delete, func, insert, select, update

from api.database import Database
from api.events import EVENT_COLUMNS, record_events
from api.models import idempotency_keys, plan_documents, plans, topologies, traces, uploads
from placement.plan import gap_of

__all__ = [
    "ConflictError",
    "Created",
    "PlanRow",
    "Store",
    "TenantStore",
    "TopologyRow",
    "Totals",
    "TraceRow",
    "UploadRow",
]

ACTIVE = ("queued", "running")
HIDDEN = ("trace_seq", "lease_until", "begun", "crashes", "claimed_by")
PLAN_COLUMNS = [column for column in plans.columns if column.name not in HIDDEN]


@dataclass(frozen=True, kw_only=True)
class TraceRow:
    """A trace; `facts` is what `api.inspection` found out."""

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


class Store:
    """What the service knows of all tenants together; what one of them sees is `of` it.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def of(self, tenant: str) -> TenantStore:
        """Return the traces and plans of a tenant."""
        return TenantStore(self.database, tenant)

    def trace_ids(self) -> set[str]:
        """Return the ids of all traces."""
        with self.database.read() as connection:
            return set(connection.execute(select(traces.c.id)).scalars())

    def trace_is_known(self, trace_id: str) -> bool:
        """Whether any tenant has the trace."""
        with self.database.read() as connection:
            return connection.execute(select(traces.c.seq).where(traces.c.id == trace_id).limit(1)).first() is not None

    def expired_uploads(self, now: float) -> set[str]:
        """Return the ids of uploads in parts that have expired."""
        with self.database.read() as connection:
            return set(connection.execute(select(uploads.c.id).where(uploads.c.expires_at < now)).scalars())

    def drop_plans(self, before: float) -> int:
        """Delete plans and fronts that were finished before a time; return how many."""
        old = plans.c.status.not_in(ACTIVE) & (plans.c.finished_at < before)
        with self.database.write() as connection:
            return connection.execute(delete(plans).where(old)).rowcount

    def drop_traces(self, before: float) -> list[str]:
        """Delete traces that came before a time and have no plans; return their ids."""
        used = select(plans.c.seq).where(plans.c.trace_seq == traces.c.seq).exists()
        with self.database.write() as connection:
            found = connection.execute(
                select(traces.c.seq, traces.c.id).where(traces.c.created_at < before, ~used)
            ).all()
            if found:
                connection.execute(delete(traces).where(traces.c.seq.in_([row.seq for row in found])))
            return [row.id for row in found]

    def drop_uploads(self, expired_at: float) -> set[str]:
        """Forget uploads in parts that have expired; return the ids of the others."""
        with self.database.write() as connection:
            connection.execute(delete(uploads).where(uploads.c.expires_at < expired_at))
            return set(connection.execute(select(uploads.c.id)).scalars())

    def counts(self) -> dict[str, int]:
        """Return the number of plans per status."""
        with self.database.read() as connection:
            return _counts(connection)

    def totals(self) -> Totals:
        """Return what the service has, of all tenants together."""
        since = select(func.min(plans.c.updated_at)).where(plans.c.status == "queued")
        kept = select(traces.c.id, func.max(traces.c.bytes).label("bytes")).group_by(traces.c.id).subquery()
        with self.database.read() as connection:
            count, size = connection.execute(select(func.count(), func.sum(kept.c.bytes))).one()
            return Totals(
                plans=_counts(connection),
                waiting_since=connection.execute(since).scalar_one(),
                blobs=count,
                blob_bytes=int(size or 0),
                open_uploads=connection.execute(select(func.count()).select_from(uploads)).scalar_one(),
            )


class TenantStore:
    """Traces and plans of one tenant; nothing of others can be read or changed through it.

    Parameters
    ----------
    database : Database
    tenant : str
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self.database = database
        self.tenant = tenant

    def add_trace(
        self,
        trace_id: str,
        name: str | None,
        size: int,
        facts: Mapping[str, Any],
        tags: Sequence[str] = (),
        max_bytes: int | None = None,
    ) -> tuple[TraceRow, bool]:
        """Add a trace, unless it is there. Returns it, and whether it is new.

        `ConflictError` (``quota-exceeded``) if the tenant's traces would have more than `max_bytes`.
        """
        with self.database.write() as connection:
            if (known := self._trace(connection, trace_id)) is not None:
                return known, False
            kept = select(func.coalesce(func.sum(traces.c.bytes), 0)).where(traces.c.tenant == self.tenant)
            if max_bytes is not None and (total := int(connection.execute(kept).scalar_one()) + size) > max_bytes:
                raise ConflictError("quota-exceeded", f"Your traces would have {total} bytes, of {max_bytes}.")
            values = {
                "tenant": self.tenant,
                "id": trace_id,
                "name": name,
                "tags": list(tags),
                "created_at": time.time(),
                "bytes": size,
                "facts": dict(facts),
            }
            connection.execute(insert(traces).values(values))
            added = self._trace(connection, trace_id)
            assert added is not None
            return added, True

    def trace(self, trace_id: str) -> TraceRow | None:
        """Return a trace."""
        with self.database.read() as connection:
            return self._trace(connection, trace_id)

    def list_traces(self, limit: int, before: int | None, tags: Sequence[str] = ()) -> list[TraceRow]:
        """Return up to `limit` traces with all of `tags`, the newest first, older than `before`."""
        mine = (traces.c.tenant == self.tenant) & _tagged(traces, tags)
        query = select(traces).where(mine).order_by(traces.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(traces.c.seq < before)
        with self.database.read() as connection:
            return [TraceRow(**row._mapping) for row in connection.execute(query)]

    def delete_trace(self, trace_id: str) -> bool:
        """Delete a trace; False if there is none. `ConflictError` if a queued or running plan needs it."""
        with self.database.write() as connection:
            row = self._trace(connection, trace_id)
            if row is None:
                return False
            using = select(func.count()).where(plans.c.trace_seq == row.seq, plans.c.status.in_(ACTIVE))
            if count := connection.execute(using).scalar_one():
                raise ConflictError("trace-in-use", f"{count} queued or running plan(s) need the trace.")
            connection.execute(delete(traces).where(traces.c.seq == row.seq))
            return True

    def add_plan(
        self,
        request: Mapping[str, Any],
        *,
        max_queued: int,
        max_active: int | None = None,
        kind: str = "plan",
        tags: Sequence[str] = (),
        start: str | None = None,
        key: str | None = None,
        body_hash: str = "",
        key_age_s: float = 86_400.0,
    ) -> Created:
        """Queue a plan.

        Parameters
        ----------
        request : mapping
            The validated body.
        max_queued : int
            Of all tenants.
        max_active : int, optional
            Of this tenant, running ones included.
        kind : str
            ``plan`` or ``front``.
        tags : sequence of str
        start : str, optional
            Plan file to start from.
        key : str, optional
            Idempotency key; the same key and `body_hash` give the plan of the first request.
        key_age_s : float
            How long keys are remembered.

        Raises
        ------
        ConflictError
            ``idempotency-key-reused``, ``queue-full``, ``quota-exceeded``, or ``not-found`` if the trace has gone.
        """
        now = time.time()
        with self.database.write() as connection:
            connection.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at < now - key_age_s))
            if (
                key is not None
                and (earlier := self._plan_of_key(connection, key, body_hash, now - key_age_s, kind)) is not None
            ):
                return Created(row=earlier, new=False)
            trace = self._trace(connection, request["trace"])
            if trace is None:
                raise ConflictError("not-found", "The trace was deleted meanwhile.")
            waiting = connection.execute(select(func.count()).where(plans.c.status == "queued")).scalar_one()
            if waiting >= max_queued:
                raise ConflictError("queue-full", f"{waiting} plans are waiting.")
            own = select(func.count()).where(plans.c.tenant == self.tenant, plans.c.status.in_(ACTIVE))
            if max_active is not None and (count := connection.execute(own).scalar_one()) >= max_active:
                raise ConflictError("quota-exceeded", f"{count} of your plans wait or run, of {max_active}.")
            plan_id = f"{kind}_{secrets.token_hex(16)}"
            values = {
                "tenant": self.tenant,
                "id": plan_id,
                "kind": kind,
                "name": request.get("name"),
                "tags": list(tags),
                "trace_seq": trace.seq,
                "request": dict(request),
                "status": "queued",
                "cancel_requested": False,
                "revision": 1,
                "attempt": 0,
                "crashes": 0,
                "created_at": now,
                "updated_at": now,
                "warnings": [],
            }
            record_events(connection, connection.execute(insert(plans).values(values).returning(*EVENT_COLUMNS)).all())
            connection.execute(insert(plan_documents).values(plan_id=plan_id, start=start))
            if key is not None:
                values = {"tenant": self.tenant, "key": key, "body_hash": body_hash, "plan_id": plan_id}
                connection.execute(insert(idempotency_keys).values({**values, "created_at": now}))
            added = self._plan(connection, plan_id, kind)
            assert added is not None
            return Created(row=added, new=True)

    def plan(self, plan_id: str, kind: str = "plan") -> PlanRow | None:
        """Return a plan (or front)."""
        with self.database.read() as connection:
            return self._plan(connection, plan_id, kind)

    def plan_of_key(self, key: str, body_hash: str, key_age_s: float, kind: str = "plan") -> PlanRow | None:
        """Return the plan that an idempotency key stands for. `ConflictError` if it came with another body."""
        with self.database.read() as connection:
            return self._plan_of_key(connection, key, body_hash, time.time() - key_age_s, kind)

    def documents(self, plan_id: str, kind: str = "plan") -> tuple[PlanRow | None, str | None, str | None]:
        """Return a plan (or front) with the texts of its plan file (or points) and its summary."""
        query = select(plan_documents.c.plan, plan_documents.c.summary).where(plan_documents.c.plan_id == plan_id)
        with self.database.read() as connection:
            row = self._plan(connection, plan_id, kind)
            texts = None if row is None else connection.execute(query).one_or_none()
            return row, *(texts or (None, None))

    def list_plans(
        self,
        limit: int,
        before: int | None,
        statuses: Sequence[str] = (),
        kind: str = "plan",
        tags: Sequence[str] = (),
    ) -> list[PlanRow]:
        """Return up to `limit` plans of a kind, the newest first, older than `before`, in any of `statuses`."""
        mine = (plans.c.tenant == self.tenant) & (plans.c.kind == kind) & _tagged(plans, tags)
        query = select(*PLAN_COLUMNS).where(mine).order_by(plans.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(plans.c.seq < before)
        if statuses:
            query = query.where(plans.c.status.in_(statuses))
        with self.database.read() as connection:
            return [PlanRow(**row._mapping) for row in connection.execute(query)]

    def cancel(self, plan_id: str, kind: str = "plan") -> PlanRow | None:
        """Cancel a plan (or front): at once if it is queued; a running one is asked to stop. None if there is none."""
        now = time.time()
        bump = {"revision": plans.c.revision + 1, "updated_at": now, "cancel_requested": True}
        with self.database.write() as connection:
            own = (plans.c.tenant == self.tenant) & (plans.c.id == plan_id) & (plans.c.kind == kind)
            mine = update(plans).where(own).returning(*EVENT_COLUMNS)
            running = mine.where(plans.c.status == "running", ~plans.c.cancel_requested)
            ended = {"status": "cancelled", "finished_at": now}
            for change in (running.values(bump), mine.where(plans.c.status == "queued").values({**bump, **ended})):
                record_events(connection, connection.execute(change).all())
            return self._plan(connection, plan_id, kind)

    def delete_plan(self, plan_id: str, kind: str = "plan") -> bool:
        """Delete a plan (or front); False if there is none. `ConflictError` if it runs and was not cancelled."""
        with self.database.write() as connection:
            row = self._plan(connection, plan_id, kind)
            if row is not None and row.status == "running" and not row.cancel_requested:
                raise ConflictError("not-finished", "The plan is running.")
            if row is None:
                return False
            connection.execute(delete(plans).where(plans.c.seq == row.seq))
            return True

    def label(self, table: Table, item_id: str, changes: Mapping[str, Any]) -> bool:
        """Change `name` or `tags` of a trace, plan or topology; False if there is none."""
        mine = (table.c.tenant == self.tenant) & (table.c.id == item_id)
        if not changes:
            with self.database.read() as connection:
                return connection.execute(select(table.c.seq).where(mine)).first() is not None
        values = dict(changes)
        if not values:
            with self.database.read() as connection:
                return connection.execute(select(table.c.seq).where(mine)).first() is not None
        if "revision" in table.c:
            values |= {"revision": table.c.revision + 1, "updated_at": time.time()}
        with self.database.write() as connection:
            change = update(table).where(mine).values(values)
            if table is not plans:
                return connection.execute(change).rowcount > 0
            rows = connection.execute(change.returning(*EVENT_COLUMNS)).all()
            record_events(connection, rows)
            return bool(rows)

    def add_topology(self, content: Any, name: str | None, tags: Sequence[str]) -> TopologyRow:
        """Keep a topology."""
        values = {
            "tenant": self.tenant,
            "id": f"topo_{secrets.token_hex(16)}",
            "name": name,
            "tags": list(tags),
            "created_at": time.time(),
            "content": content,
        }
        with self.database.write() as connection:
            row = connection.execute(insert(topologies).values(values).returning(topologies)).one()
        return TopologyRow(**row._mapping)

    def topology(self, topology_id: str) -> TopologyRow | None:
        """Return a topology."""
        mine = (topologies.c.tenant == self.tenant) & (topologies.c.id == topology_id)
        with self.database.read() as connection:
            row = connection.execute(select(topologies).where(mine)).one_or_none()
        return None if row is None else TopologyRow(**row._mapping)

    def list_topologies(self, limit: int, before: int | None, tags: Sequence[str] = ()) -> list[TopologyRow]:
        """Return up to `limit` topologies with all of `tags`, the newest first, older than `before`."""
        mine = (topologies.c.tenant == self.tenant) & _tagged(topologies, tags)
        query = select(topologies).where(mine).order_by(topologies.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(topologies.c.seq < before)
        with self.database.read() as connection:
            return [TopologyRow(**row._mapping) for row in connection.execute(query)]

    def delete_topology(self, topology_id: str) -> bool:
        """Delete a topology; False if there is none. Plans keep what it was."""
        mine = (topologies.c.tenant == self.tenant) & (topologies.c.id == topology_id)
        with self.database.write() as connection:
            return connection.execute(delete(topologies).where(mine)).rowcount > 0

    def add_upload(self, name: str | None, hints: Mapping[str, Any], size: int | None, expires_at: float) -> UploadRow:
        """Begin an upload in parts; `hints` may hold ``tags`` too."""
        values = {
            "tenant": self.tenant,
            "id": f"upload_{secrets.token_hex(16)}",
            "name": name,
            "hints": dict(hints),
            "bytes": size,
            "created_at": time.time(),
            "expires_at": expires_at,
        }
        with self.database.write() as connection:
            row = connection.execute(insert(uploads).values(values).returning(uploads)).one()
        return UploadRow(**row._mapping)

    def upload(self, upload_id: str) -> UploadRow | None:
        """Return an upload in parts that has not expired."""
        mine = (uploads.c.tenant == self.tenant) & (uploads.c.id == upload_id) & (uploads.c.expires_at > time.time())
        with self.database.read() as connection:
            row = connection.execute(select(uploads).where(mine)).one_or_none()
        return None if row is None else UploadRow(**row._mapping)

    def delete_upload(self, upload_id: str) -> bool:
        """Forget an upload in parts; False if there is none."""
        mine = (uploads.c.tenant == self.tenant) & (uploads.c.id == upload_id)
        with self.database.write() as connection:
            return connection.execute(delete(uploads).where(mine)).rowcount > 0

    def _trace(self, connection: Connection, trace_id: str) -> TraceRow | None:
        mine = (traces.c.tenant == self.tenant) & (traces.c.id == trace_id)
        row: Row[Any] | None = connection.execute(select(traces).where(mine)).one_or_none()
        return None if row is None else TraceRow(**row._mapping)

    def _plan(self, connection: Connection, plan_id: str, kind: str) -> PlanRow | None:
        mine = (plans.c.tenant == self.tenant) & (plans.c.id == plan_id) & (plans.c.kind == kind)
        row: Row[Any] | None = connection.execute(select(*PLAN_COLUMNS).where(mine)).one_or_none()
        return None if row is None else PlanRow(**row._mapping)

    def _plan_of_key(self, connection: Connection, key: str, body_hash: str, since: float, kind: str) -> PlanRow | None:
        columns = (idempotency_keys.c.plan_id, idempotency_keys.c.body_hash)
        mine = (idempotency_keys.c.tenant == self.tenant) & (idempotency_keys.c.key == key)
        query = select(*columns).where(mine, idempotency_keys.c.created_at >= since)
        known = connection.execute(query).one_or_none()
        if known is None:
            return None
        if known.body_hash != body_hash:
            raise ConflictError("idempotency-key-reused", "The key was sent before with another body.")
        return self._plan(connection, known.plan_id, kind)


def _counts(connection: Connection) -> dict[str, int]:
    query = select(plans.c.status, func.count()).group_by(plans.c.status)
    return {row.status: row[1] for row in connection.execute(query)}


def _tagged(table: Table, tags: Sequence[str]) -> ColumnElement[bool]:
    """Whether a row has all tags. They hold no quotes, so a tag's JSON text can't be a part of another's."""
    text = cast(table.c.tags, Text)
    found: ColumnElement[bool] = table.c.seq > 0
    for tag in tags:
        found &= text.contains(f'"{tag}"', autoescape=True)
    return found
