"""Traces of a tenant, and uploads in parts that become traces."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from api.store.kept import Kept, Named
from api.store.models import plan_traces, plans, series, series_windows, traces, uploads
from api.store.rows import ACTIVE, ConflictError, TraceRow, UploadRow

__all__ = ["Traces", "Uploads"]


class Traces(Named[TraceRow]):
    """Traces of one tenant; their bytes are in the blobs' folder."""

    table = traces
    row = TraceRow
    heavy = "facts"

    def add(
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
            if (known := self._row(connection, trace_id)) is not None:
                return known, False
            if max_bytes is not None and (total := self._kept_bytes(connection) + size) > max_bytes:
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
            added = self._row(connection, trace_id)
            assert added is not None
            return added, True

    def kept_bytes(self) -> int:
        """Return how many bytes the tenant's traces have."""
        with self.database.read() as connection:
            return self._kept_bytes(connection)

    def delete(self, trace_id: str) -> bool:
        """Delete a trace; False if there is none. `ConflictError` if an unfinished plan, or a series, needs it."""
        with self.database.write() as connection:
            row = self._row(connection, trace_id)
            if row is None:
                return False
            named = select(plan_traces.c.plan_id).where(plan_traces.c.trace_seq == row.seq)
            needed = (plans.c.trace_seq == row.seq) | plans.c.id.in_(named)
            using = select(func.count()).where(needed, plans.c.status.in_(ACTIVE))
            if count := connection.execute(using).scalar_one():
                raise ConflictError("trace-in-use", f"{count} queued or running plan(s) need the trace.")
            having = select(series.c.id).join(series_windows).where(series_windows.c.trace_seq == row.seq)
            if found := connection.execute(having.order_by(series.c.seq)).scalars().all():
                detail = f"It is a window of {len(found)} series, first of {found[0]}. Delete the series first."
                raise ConflictError("trace-in-use", detail)
            connection.execute(delete(traces).where(traces.c.seq == row.seq))
            return True

    def _kept_bytes(self, connection: Connection) -> int:
        kept = select(func.coalesce(func.sum(traces.c.bytes), 0)).where(traces.c.tenant == self.tenant)
        return int(connection.execute(kept).scalar_one())


class Uploads(Kept[UploadRow]):
    """Uploads in parts of one tenant; their bytes are in the blobs' folder."""

    table = uploads
    row = UploadRow

    def add(
        self,
        name: str | None,
        hints: Mapping[str, Any],
        size: int | None,
        expires_at: float,
        max_open: int | None = None,
    ) -> UploadRow:
        """Begin an upload in parts; `hints` may hold ``tags`` too. `ConflictError` if as many are open as may be."""
        values = {
            "tenant": self.tenant,
            "id": f"upload_{secrets.token_hex(16)}",
            "name": name,
            "hints": dict(hints),
            "bytes": size,
            "created_at": time.time(),
            "expires_at": expires_at,
        }
        mine = select(func.count()).where(uploads.c.tenant == self.tenant)
        with self.database.write() as connection:
            if max_open is not None and (count := connection.execute(mine).scalar_one()) >= max_open:
                raise ConflictError("quota-exceeded", f"{count} of your uploads in parts are open, of {max_open}.")
            row = connection.execute(insert(uploads).values(values).returning(uploads)).one()
        return UploadRow(**row._mapping)

    def ids(self) -> list[str]:
        """Return the ids of the tenant's uploads in parts."""
        with self.database.read() as connection:
            return list(connection.execute(select(uploads.c.id).where(uploads.c.tenant == self.tenant)).scalars())

    def get(self, row_id: str) -> UploadRow | None:
        """Return an upload in parts that has not expired."""
        row = super().get(row_id)
        return None if row is None or row.expires_at <= time.time() else row
