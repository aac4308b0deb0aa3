"""Everything of a tenant that is queued, and the idempotency keys that it was asked for with."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from api.store.database import Database
from api.store.events import EVENT_COLUMNS, record_events
from api.store.labels import tagged
from api.store.models import idempotency_keys, plan_documents, plan_traces, plans, traces
from api.store.models import series as series_table
from api.store.pages import page_of, page_query
from api.store.rows import ACTIVE, ConflictError, Created, PlanRow, SeriesRow

__all__ = ["Plans"]

HIDDEN = ("trace_seq", "series_seq", "lease_until", "begun", "crashes", "claimed_by", "expected_s")
PLAN_COLUMNS = [column for column in plans.columns if column.name not in HIDDEN]


class Plans:
    """Plans, fronts, re-plans, simulations and mixtures of one tenant, which `kind` tells apart.

    Nothing of others can be read or changed through it.

    Parameters
    ----------
    database : Database
    tenant : str
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self.database = database
        self.tenant = tenant

    def add(
        self,
        request: Mapping[str, Any],
        *,
        max_queued: int,
        max_active: int | None = None,
        kind: str = "plan",
        tags: Sequence[str] = (),
        start: str | None = None,
        replaces: str | None = None,
        series: SeriesRow | None = None,
        series_length: int | None = None,
        traces_of: Sequence[str] = (),
        key: str | None = None,
        body_hash: str = "",
        key_age_s: float = 86_400.0,
        expected_s: float | None = None,
    ) -> Created:
        """Queue a plan.

        Parameters
        ----------
        request : mapping
            The validated body; its `trace` is one of the tenant's, if there is one.
        max_queued : int
            Of all tenants; one that has nothing in the queue may add a plan to a full one.
        max_active : int, optional
            Of this tenant, running ones included.
        kind : str
            ``plan``, ``front``, ``replan``, ``simulation`` or ``mixture``.
        tags : sequence of str
        start : str, optional
            Plan file to start from, or that runs.
        replaces : str, optional
            Id of the plan that this one is to replace.
        series : SeriesRow, optional
            In place of a trace, with the number of its windows.
        traces_of : sequence of str
            In place of a trace: the ids of several, in order.
        key : str, optional
            Idempotency key; the same key and `body_hash` give the plan of the first request.
        key_age_s : float
            How long keys are remembered.
        expected_s : float, optional
            How long its worker will be busy, as far as the request tells.

        Raises
        ------
        ConflictError
            ``idempotency-key-reused``, ``queue-full``, ``quota-exceeded``; ``not-found`` if traces or series have gone.
        """
        now = time.time()
        with self.database.write() as connection:
            if key is not None:
                if (earlier := self._plan_of_key(connection, key, body_hash, now - key_age_s, kind)) is not None:
                    return Created(row=earlier, new=False)
                mine = (idempotency_keys.c.tenant == self.tenant) & (idempotency_keys.c.key == key)
                connection.execute(delete(idempotency_keys).where(mine))  # it is too old: the key is used anew
            trace_seq = self._trace_seq(connection, request.get("trace"))
            others = [self._trace_seq(connection, trace_id) for trace_id in traces_of]
            if series is not None:
                there = select(series_table.c.seq).where(series_table.c.seq == series.seq)
                if connection.execute(there).first() is None:
                    raise ConflictError("not-found", "The series was deleted meanwhile.")
            waiting = select(func.count()).where(plans.c.status == "queued")
            full = connection.execute(waiting).scalar_one() >= max_queued
            # Whoever has nothing that waits is let in: one tenant's plans don't keep the others out. And the number of
            # all plans would tell what others do.
            if full and connection.execute(waiting.where(plans.c.tenant == self.tenant)).scalar_one():
                raise ConflictError("queue-full", "The service takes no more of your plans just now.")
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
                "trace_seq": trace_seq,
                "series_seq": None if series is None else series.seq,
                "series_length": series_length,
                "replaces": replaces,
                "request": dict(request),
                "status": "queued",
                "cancel_requested": False,
                "revision": 1,
                "attempt": 0,
                "crashes": 0,
                "created_at": now,
                "updated_at": now,
                "warnings": [],
                "expected_s": expected_s,
            }
            record_events(connection, connection.execute(insert(plans).values(values).returning(*EVENT_COLUMNS)).all())
            connection.execute(insert(plan_documents).values(plan_id=plan_id, start=start))
            if others:
                named = [{"plan_id": plan_id, "number": n, "trace_seq": seq} for n, seq in enumerate(others)]
                connection.execute(insert(plan_traces), named)
            if key is not None:
                values = {"tenant": self.tenant, "key": key, "body_hash": body_hash, "plan_id": plan_id}
                connection.execute(insert(idempotency_keys).values({**values, "created_at": now}))
            added = self._plan(connection, plan_id, kind)
            assert added is not None
            return Created(row=added, new=True)

    def _trace_seq(self, connection: Connection, trace_id: str | None) -> int | None:
        if trace_id is None:
            return None
        known = (traces.c.tenant == self.tenant) & (traces.c.id == trace_id)
        found: int | None = connection.execute(select(traces.c.seq).where(known)).scalar_one_or_none()
        if found is None:
            raise ConflictError("not-found", "The trace was deleted meanwhile.")
        return found

    def get(self, plan_id: str, kind: str = "plan") -> PlanRow | None:
        """Return a plan (or front)."""
        with self.database.read() as connection:
            return self._plan(connection, plan_id, kind)

    def of_key(self, key: str, body_hash: str, key_age_s: float, kind: str = "plan") -> PlanRow | None:
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

    def page(
        self,
        limit: int,
        before: int | None,
        statuses: Sequence[str] = (),
        kind: str = "plan",
        tags: Sequence[str] = (),
    ) -> tuple[list[PlanRow], bool]:
        """Return up to `limit` plans of a kind, the newest first, older than `before`, in any of `statuses`.

        And whether there is more; a page ends early where requests are large.
        """
        query = _listed(self.tenant, kind, limit, before, tuple(statuses), tuple(tags))
        with self.database.read() as connection:
            rows, more = page_of(connection, query, limit)
            return [PlanRow(**row) for row in rows], more

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

    def label(self, plan_id: str, changes: Mapping[str, Any], kind: str = "plan") -> bool:
        """Change `name` or `tags` of a plan (or front); False if there is none."""
        if not changes:
            return self.get(plan_id, kind) is not None
        values = {**changes, "revision": plans.c.revision + 1, "updated_at": time.time()}
        mine = (plans.c.tenant == self.tenant) & (plans.c.id == plan_id) & (plans.c.kind == kind)
        with self.database.write() as connection:
            rows = connection.execute(update(plans).where(mine).values(values).returning(*EVENT_COLUMNS)).all()
            record_events(connection, rows)
            return bool(rows)

    def delete(self, plan_id: str, kind: str = "plan") -> bool:
        """Delete a plan (or front); False if there is none. `ConflictError` if it runs and was not cancelled."""
        with self.database.write() as connection:
            row = self._plan(connection, plan_id, kind)
            if row is not None and row.status == "running" and not row.cancel_requested:
                raise ConflictError("not-finished", "The plan is running.")
            if row is None:
                return False
            connection.execute(delete(plans).where(plans.c.seq == row.seq))
            return True

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


@lru_cache(maxsize=64)  # a query's key in the library's own cache is found once; the first pages are asked for most
def _listed(
    tenant: str, kind: str, limit: int, before: int | None, statuses: tuple[str, ...], tags: tuple[str, ...]
) -> Select[Any]:
    query = select(*PLAN_COLUMNS).where((plans.c.tenant == tenant) & (plans.c.kind == kind) & tagged(plans, tags))
    if before is not None:
        query = query.where(plans.c.seq < before)
    if statuses:
        query = query.where(plans.c.status.in_(statuses))
    return page_query(query, plans.c.seq, plans.c.request, limit)
