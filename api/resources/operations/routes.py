"""For those who run the service: is it up, is it ready, how does it do."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.http.access import PrincipalOf, may
from api.http.problems import ProblemError, problems
from api.resources.context import Services, ServicesOf
from api.store.disk import disk_problem
from api.telemetry.gauges import LATEST_SERIES, LoadFigures, SeriesDrift, SeriesFigures

__all__ = ["router"]

router = APIRouter(tags=["operations"])
TEXT: dict[int | str, dict[str, Any]] = {200: {"description": "Text.", "content": {"text/plain": {}}}}


@router.get("/healthz", response_class=Response, summary="Is the process up", responses={**TEXT, **problems()})
async def healthz() -> Response:
    """Answer ok as long as the process answers at all: no thread is taken, and nothing is waited for."""
    return Response("ok\n", media_type="text/plain")


@router.get("/readyz", response_class=Response, summary="Can it do its work", responses={**TEXT, **problems()})
async def readyz(services: ServicesOf) -> Response:
    """Answer ok if the store can be read, plans are run, and the disk takes more; one look serves all who wait."""
    if services.draining.is_set():
        raise ProblemError("unavailable", "The service is stopping.")
    if (trouble := await _trouble(services)) is not None:
        raise ProblemError("unavailable", trouble)
    return Response("ok\n", media_type="text/plain")


async def _trouble(services: Services) -> str | None:
    """Look, or wait for the look that is under way: strangers, however many, hold one thread and ask one question."""
    if services.looking is None or services.looking.done():
        services.looking = asyncio.create_task(run_in_threadpool(_trouble_of, services))
    return await asyncio.shield(services.looking)


def _trouble_of(services: Services) -> str | None:
    """Return why a service can't do its work; None if it can."""
    try:
        services.store.counts()
    except SQLAlchemyError:
        services.metrics.store_errors.labels("ready").inc()
        return "The store can't be read."
    if (trouble := services.parts.dispatcher.trouble) is not None:
        return trouble
    return disk_problem(services.settings.data_dir, services.settings.min_free_bytes)


@router.get(
    "/metrics",
    response_class=Response,
    summary="Figures for Prometheus",
    dependencies=[Depends(may("admin"))],
    responses={**TEXT, **problems()},
)
def metrics(services: ServicesOf, principal: PrincipalOf) -> Response:
    """Return the figures in Prometheus' text format: of the service, and of one's own latest plans and series."""
    own = CollectorRegistry()
    own.register(LoadFigures(services.metrics.loads.of(principal.tenant)))
    try:
        own.register(SeriesFigures(_drifts(services, principal.tenant)))
    except SQLAlchemyError:
        services.metrics.store_errors.labels("metrics").inc()
    text = generate_latest(services.metrics.registry) + generate_latest(own)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _drifts(services: Services, tenant: str) -> list[SeriesDrift]:
    found = []
    for row, windows, drift in services.store.of(tenant).series.latest(LATEST_SERIES):
        told = drift or dict.fromkeys(("size", "noise", "drifted"))
        figures = {name: told[name] for name in ("size", "noise", "drifted")}
        found.append(SeriesDrift(series=row.id, windows=windows, **figures))
    return found
