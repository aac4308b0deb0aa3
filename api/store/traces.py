"""Traces of a tenant, and uploads in parts that become traces."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select

from api.store.kept import Kept, Named
from api.store.models import plans, traces, uploads
from api.store.rows import ACTIVE, ConflictError, TraceRow, UploadRow

__all__ = ["Traces", "Uploads"]


class Traces(Named[TraceRow]):
    """Traces of one tenant; their bytes are in the blobs' folder."""

    table = traces
    row = TraceRow

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
            added = self._row(connection, trace_id)
            assert added is not None
            return added, True

    def delete(self, trace_id: str) -> bool:
        """Delete a trace; False if there is none. `ConflictError` if a queued or running plan needs it."""
        with self.database.write() as connection:
            row = self._row(connection, trace_id)
            if row is None:
                return False
            using = select(func.count()).where(plans.c.trace_seq == row.seq, plans.c.status.in_(ACTIVE))
            if count := connection.execute(using).scalar_one():
                raise ConflictError("trace-in-use", f"{count} queued or running plan(s) need the trace.")
            connection.execute(delete(traces).where(traces.c.seq == row.seq))
            return True


class Uploads(Kept[UploadRow]):
    """Uploads in parts of one tenant; their bytes are in the blobs' folder."""

    table = uploads
    row = UploadRow

    def add(self, name: str | None, hints: Mapping[str, Any], size: int | None, expires_at: float) -> UploadRow:
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

    def get(self, row_id: str) -> UploadRow | None:
        """Return an upload in parts that has not expired."""
        row = super().get(row_id)
        return None if row is None or row.expires_at <= time.time() else row
