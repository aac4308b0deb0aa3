"""Routes of fronts: many plans in one call, from least traffic to best balance, fewest replicas or bytes moved."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from api.http.problems import ProblemError, problems
from api.http.strict import StrictRoute
from api.resources.context import StoreOf
from api.resources.fronts.answers import FrontList, FrontResource
from api.resources.schemas import FrontBody
from api.resources.searches.kinds import SearchKind
from api.resources.searches.queueing import checked
from api.resources.searches.routes import add_routes

__all__ = ["router"]

router = APIRouter(prefix="/v1/fronts", tags=["fronts"], route_class=StrictRoute)
FRONTS = SearchKind(
    name="front",
    finds="points",
    check=checked,
    retry_after_s=2,
    resource=lambda row, points, _: FrontResource.of(row, points),
    page=lambda rows, cursor: FrontList(items=[FrontResource.of(row) for row in rows], next_cursor=cursor),
)


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


add_routes(router, FRONTS, FrontBody, FrontResource, FrontList)
