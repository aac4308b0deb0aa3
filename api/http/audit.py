"""Middleware that writes the audit log."""

from __future__ import annotations

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import ProblemError
from api.http.rates import Rates
from api.store.audit import AuditLog

__all__ = ["Audited"]

UNCHANGING = ("GET", "HEAD", "OPTIONS")
REFUSED = (401, 403)
# Refusals cost whoever asks nothing, so they must not cost the disk more than this; those beyond are counted.
PER_ADDRESS = (1 / 6, 10)  # per second, at once
PER_SERVICE = (1.0, 100)
log = structlog.get_logger(__name__)


class Audited:
    """Adds an entry to the audit log, after the answer, for what changes something or was refused.

    Every change has an entry of its own. Of refusals some have: so many per address, and so many in all. How many more
    there were is in an entry that follows, and by status in the metrics.

    Parameters
    ----------
    app : ASGI application
    audit : AuditLog
    """

    def __init__(self, app: ASGIApp, audit: AuditLog) -> None:
        self.app = app
        self.audit = audit
        self._addresses, self._service = Rates(*PER_ADDRESS), Rates(*PER_SERVICE)

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
                client = scope.get("client")
                if status < 400 or self._sampled(str(client[0]) if client else ""):
                    await run_in_threadpool(self._note, scope, status)
                else:
                    self.audit.left_out += 1

    def _sampled(self, address: str) -> bool:
        try:
            self._addresses.check(address)
            self._service.check("")
        except ProblemError:
            return False
        return True

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
                target=_shown(scope["path"][:400]),
                status=status,
            )
        except SQLAlchemyError:
            log.exception("audit.lost", path=scope["path"], status=status)


def _shown(path: str) -> str:
    """Return a path that every database takes."""
    return path.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
