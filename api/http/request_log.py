"""A log line and counts for every request, under an id that the answer names."""

from __future__ import annotations

import asyncio
import re
import secrets
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import problem_response
from api.telemetry.metrics import Metrics

__all__ = ["RequestLog"]

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
SHOWN = 400  # characters of a path: strangers must not fill the log
log = structlog.get_logger(__name__)


class RequestLog:
    """Middleware: gives every request an id, logs how it ended, and counts it.

    Parameters
    ----------
    app : ASGI application
    metrics : Metrics
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        begin, status, started = time.perf_counter(), 500, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except asyncio.CancelledError:
                # The server stops and has waited long enough.
                if started:
                    raise
                stopping = problem_response("unavailable", "The service is stopping.", headers={"Retry-After": "5"})
                await stopping(scope, receive, send_with_id)
            except Exception:
                log.exception("request.failed", method=scope["method"][:20], path=scope["path"][:SHOWN])
                if started:
                    raise
                detail = f"A fault of the service. Its log tells more under request id {request_id}."
                await problem_response("internal-error", detail)(scope, receive, send_with_id)
            finally:
                # The template of the route, not the path: ids would make a series each.
                route = getattr(scope.get("route"), "path", "") or "unknown"
                method = scope["method"] if scope["method"] in METHODS else "other"  # a client may invent any
                self.metrics.requests.labels(method, route, str(status)).inc()
                self.metrics.request_seconds.labels(method, route).observe(time.perf_counter() - begin)
                log.info(
                    "request",
                    method=scope["method"][:20],
                    path=scope["path"][:SHOWN],
                    status=status,
                    duration_s=round(time.perf_counter() - begin, 6),
                )
