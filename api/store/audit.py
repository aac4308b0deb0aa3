"""The audit log: who changed what, when, from where, and how it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.store.database import Database
from api.store.models import audit_log

__all__ = ["AuditEntry", "AuditLog", "Audited"]

UNCHANGING = ("GET", "HEAD", "OPTIONS")
REFUSED = (401, 403)
log = structlog.get_logger(__name__)


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
    status: int


class AuditLog:
    """The entries.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, **values: Any) -> None:
        """Add an entry; see `AuditEntry`."""
        with self.database.write() as connection:
            connection.execute(insert(audit_log).values(at=time.time(), **values))

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


class Audited:
    """Middleware that writes the entries, after the answer.

    Parameters
    ----------
    app : ASGI application
    audit : AuditLog
    """

    def __init__(self, app: ASGIApp, audit: AuditLog) -> None:
        self.app = app
        self.audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            if scope["method"] not in UNCHANGING or status in REFUSED:
                await run_in_threadpool(self._note, scope, status)

    def _note(self, scope: Scope, status: int) -> None:
        principal = scope.get("state", {}).get("principal")
        client = scope.get("client")
        route = getattr(scope.get("route"), "path", "") or "unknown"
        try:
            self.audit.add(
                tenant=getattr(principal, "tenant", None),
                actor=getattr(principal, "actor", None),
                client=None if client is None else str(client[0])[:80],
                request_id=structlog.contextvars.get_contextvars().get("request_id"),
                action=f"{scope['method'][:20]} {route}"[:200],
                target=scope["path"][:400],
                status=status,
            )
        except SQLAlchemyError:
            log.exception("audit.lost", path=scope["path"], status=status)
