"""Logs as JSON lines with the request they belong to, and the figures that Prometheus reads."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import sys
import time
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import problem_response
from api.service.gauges import PlanLoad, PlanLoads, StoreFigures
from api.store.store import Store

__all__ = ["Metrics", "RequestLog", "configure_logging"]

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
SOLVE_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
GAP_BUCKETS = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
REQUEST_BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 10, 60)
log = structlog.get_logger(__name__)


def configure_logging(level: str) -> None:
    """Write all logs, those of the libraries included, to the standard error stream as JSON lines."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("alembic").setLevel(logging.WARNING)


class Metrics:
    """The figures of one service.

    Parameters
    ----------
    store : Store
        What it holds is counted when it is asked for.
    data_dir : Path
        On the disk whose free space is told.
    """

    def __init__(self, store: Store, data_dir: Path) -> None:
        self.registry = CollectorRegistry()
        self.loads = PlanLoads()
        self.store_errors = Counter(
            "moe_placement_store_errors",
            "Times that the database could not be read or written, by what was tried.",
            ("where",),
            registry=self.registry,
        )
        self.registry.register(StoreFigures(store, data_dir, self.store_errors.labels("metrics").inc))
        self.request_seconds = Histogram(
            "moe_placement_request_seconds",
            "Time until a request was answered to its end.",
            ("method", "route"),
            buckets=REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.upload_bytes = Counter(
            "moe_placement_upload_bytes", "Bytes of traces that were received.", registry=self.registry
        )
        self.gap = Histogram(
            "moe_placement_plan_gap",
            "Gap of finished plans whose bound is known.",
            ("solver",),
            buckets=GAP_BUCKETS,
            registry=self.registry,
        )
        self.requests = Counter(
            "moe_placement_requests", "Requests.", ("method", "route", "status"), registry=self.registry
        )
        self.solve_seconds = Histogram(
            "moe_placement_solve_seconds",
            "Time that searches took.",
            ("solver", "status"),
            buckets=SOLVE_BUCKETS,
            registry=self.registry,
        )
        self.worker_deaths = Counter("moe_placement_worker_deaths", "Workers that died.", registry=self.registry)

    def finished(self, solver: str, status: str, elapsed_s: float, load: PlanLoad | None) -> None:
        """Count a plan or front that has ended."""
        self.solve_seconds.labels(solver, status).observe(elapsed_s)
        if load is not None:
            self.loads.add(load)
            if load.gap is not None:
                self.gap.labels(solver).observe(load.gap)


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
                log.exception("request.failed", method=scope["method"], path=scope["path"])
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
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    duration_s=round(time.perf_counter() - begin, 6),
                )
