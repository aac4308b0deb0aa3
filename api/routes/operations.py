"""For those who run the service: is it up, is it ready, how does it do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from api.access import may
from api.problems import ProblemError
from api.routes.common import problems
from api.services import ServicesOf

__all__ = ["router"]

router = APIRouter(tags=["operations"])
TEXT: dict[int | str, dict[str, Any]] = {200: {"description": "Text.", "content": {"text/plain": {}}}}


@router.get("/healthz", response_class=Response, summary="Is the process up", responses={**TEXT, **problems()})
def healthz() -> Response:
    """Answer ok as long as the process answers at all."""
    return Response("ok\n", media_type="text/plain")


@router.get("/readyz", response_class=Response, summary="Can it do its work", responses={**TEXT, **problems()})
def readyz(services: ServicesOf) -> Response:
    """Answer ok if the store can be read and plans are run."""
    if services.draining.is_set():
        raise ProblemError("unavailable", "The service is stopping.")
    try:
        services.store.counts()
    except SQLAlchemyError:
        raise ProblemError("unavailable", "The store can't be read.") from None
    if not services.parts.dispatcher.alive:
        raise ProblemError("unavailable", "No plans are run.")
    return Response("ok\n", media_type="text/plain")


@router.get(
    "/metrics",
    response_class=Response,
    summary="Figures for Prometheus",
    dependencies=[Depends(may("admin"))],
    responses={**TEXT, **problems()},
)
def metrics(services: ServicesOf) -> Response:
    """Return the figures in Prometheus' text format."""
    return Response(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)
