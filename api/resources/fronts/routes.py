"""Routes of fronts: many plans in one call, from least traffic to best balance, fewest replicas or bytes moved."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.http.bodies import in_helper
from api.http.conditional import not_modified
from api.http.problems import ProblemError, problems
from api.http.strict import StrictRoute
from api.resources.context import ServicesOf, StoreOf
from api.resources.fronts.answers import FrontList, FrontResource
from api.resources.parameters import Key
from api.resources.schemas import FrontBody
from api.resources.searches.kinds import SearchKind
from api.resources.searches.routes import add_routes

__all__ = ["router"]

router = APIRouter(prefix="/v1/fronts", tags=["fronts"], route_class=StrictRoute)
FRONTS = SearchKind(
    name="front",
    finds="points",
    retry_after_s=2,
    resource=lambda row, points, _: FrontResource.of(row, points),
    page=lambda rows, cursor: FrontList(items=[FrontResource.of(row) for row in rows], next_cursor=cursor),
)


@router.post(
    "",
    status_code=202,
    response_model=FrontResource,
    summary="Ask for a front",
    responses=problems(
        "malformed-json",
        "not-found",
        "too-large",
        "unsupported-media-type",
        "idempotency-key-reused",
        "queue-full",
        "quota-exceeded",
    ),
)
@in_helper
async def create_front(
    body: FrontBody, request: Request, services: ServicesOf, store: StoreOf, idempotency_key: Key = None
) -> Response:
    """Queue the searches of a front; they take turns with plans."""
    front_id = await FRONTS.queue(request, services, store, body, idempotency_key)
    response = await run_in_threadpool(FRONTS.answer, store, front_id)
    response.status_code = 202
    response.headers["Location"] = f"/v1/fronts/{front_id}"
    return response


@router.get(
    "/{front_id}",
    response_model=FrontResource,
    summary="Look at a front",
    responses={304: {"description": "Not modified"}, **problems("not-found")},
)
def get_front(front_id: str, request: Request, store: StoreOf) -> Response:
    """Return the state of the searches, and the points once they have ended."""
    return not_modified(request, FRONTS.answer(store, front_id))


@router.get(
    "/{front_id}/points/{number}/plan",
    response_model=dict[str, Any],
    summary="Take the plan file of a point",
    responses=problems("not-found", "no-plan-yet"),
)
def get_point(front_id: str, number: Annotated[int, Path(ge=0, le=10_000)], store: StoreOf) -> Response:
    """Return a point's plan as a plan file and nothing else. Points are counted from 0."""
    _, text = FRONTS.found(store, front_id)
    plans: list[str] = json.loads(text)["plans"]
    if number >= len(plans):
        raise ProblemError("not-found", f"Front {front_id} has {len(plans)} points.")
    return Response(plans[number], 200, media_type="application/json")


add_routes(router, FRONTS, FrontResource, FrontList)
