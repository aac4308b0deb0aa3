"""For those who run the service: is it up, is it ready, how does it do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from api.http.access import PrincipalOf, may
from api.http.problems import ProblemError, problems
from api.resources.context import ServicesOf
from api.store.disk import disk_problem
from api.telemetry.gauges import LoadFigures

__all__ = ["router"]

router = APIRouter(tags=["operations"])
TEXT: dict[int | str, dict[str, Any]] = {200: {"description": "Text.", "content": {"text/plain": {}}}}


@router.get("/healthz", response_class=Response, summary="Is the process up", responses={**TEXT, **problems()})
async def healthz() -> Response:
    """Answer ok as long as the process answers at all: no thread is taken, and nothing is waited for."""
    return Response("ok\n", media_type="text/plain")


@router.get("/readyz", response_class=Response, summary="Can it do its work", responses={**TEXT, **problems()})
def readyz(services: ServicesOf) -> Response:
    """Answer ok if the store can be read, plans are run, and the disk takes more."""
    if services.draining.is_set():
        raise ProblemError("unavailable", "The service is stopping.")
    try:
        services.store.counts()
    except SQLAlchemyError:
        services.metrics.store_errors.labels("ready").inc()
        raise ProblemError("unavailable", "The store can't be read.") from None
    if (trouble := services.parts.dispatcher.trouble) is not None:
        raise ProblemError("unavailable", trouble)
    if (reason := disk_problem(services.settings.data_dir, services.settings.min_free_bytes)) is not None:
        raise ProblemError("unavailable", reason)
    return Response("ok\n", media_type="text/plain")


@router.get(
    "/metrics",
    response_class=Response,
    summary="Figures for Prometheus",
    dependencies=[Depends(may("admin"))],
    responses={**TEXT, **problems()},
)
def metrics(services: ServicesOf, principal: PrincipalOf) -> Response:
    """Return the figures in Prometheus' text format: of the service, and of the latest plans of one's own tenant."""
    own = CollectorRegistry()
    own.register(LoadFigures(services.metrics.loads.of(principal.tenant)))
    text = generate_latest(services.metrics.registry) + generate_latest(own)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
