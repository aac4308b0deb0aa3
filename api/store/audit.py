"""The audit log: who changed what, when, from which address, and how it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select

from api.store.database import Database
from api.store.models import audit_log

__all__ = ["LEFT_OUT", "AuditEntry", "AuditLog"]

LEFT_OUT = "not listed one by one"


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One request that changed something, tried to, or was refused."""

    seq: int
    at: float
    tenant: str | None
    actor: str | None
    client: str | None
    request_id: str | None
    action: str
    target: str | None
    status: int  # 0 where the entry is about many


class AuditLog:
    """The entries.

    Parameters
    ----------
    database : Database

    Attributes
    ----------
    left_out : int
        Refusals since the last entry that have none of their own; the next entry is about them.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.left_out = 0

    def add(self, **values: Any) -> None:
        """Add an entry; see `AuditEntry`."""
        self.tell_left_out()
        with self.database.write() as connection:
            connection.execute(insert(audit_log).values(at=time.time(), **values))

    def tell_left_out(self) -> None:
        """Add an entry on the refusals that have none of their own, if there are any."""
        if count := self.left_out:
            entry = {"action": LEFT_OUT, "target": f"{count} refused requests", "status": 0}
            with self.database.write() as connection:
                connection.execute(insert(audit_log).values(at=time.time(), **entry))
            self.left_out -= count

    def list(self, limit: int, before: int | None = None, tenant: str | None = None) -> list[AuditEntry]:
        """Return up to `limit` entries, the newest first."""
        query = select(audit_log).order_by(audit_log.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(audit_log.c.seq < before)
        if tenant is not None:
            query = query.where(audit_log.c.tenant == tenant)
        with self.database.read() as connection:
            return [AuditEntry(**row._mapping) for row in connection.execute(query)]

    def forget(self, older_than: float) -> int:
        """Delete entries from before a time; return how many."""
        with self.database.write() as connection:
            return connection.execute(delete(audit_log).where(audit_log.c.at < older_than)).rowcount
