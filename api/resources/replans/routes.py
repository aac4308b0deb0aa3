"""Re-plans: a plan that runs, a trace, and whether to change it, with which few moves."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.http.problems import problems
from api.http.strict import StrictRoute
from api.resources.context import StoreOf
from api.resources.replans.answers import ReplanList, ReplanResource, ReplanSummary
from api.resources.replans.body import ReplanBody
from api.resources.replans.replanning import check_replan
from api.resources.searches.kinds import SearchKind, plan_file
from api.resources.searches.routes import add_routes

__all__ = ["router"]

router = APIRouter(prefix="/v1/replans", tags=["replans"], route_class=StrictRoute)
REPLANS = SearchKind(
    name="replan",
    finds="plan",
    check=check_replan,
    retry_after_s=2,
    resource=ReplanResource.of_documents,
    page=lambda rows, cursor: ReplanList(items=[ReplanSummary.of(row) for row in rows], next_cursor=cursor),
)


@router.get(
    "/{replan_id}/plan",
    response_model=dict[str, Any],
    summary="Take the plan file of a re-plan",
    responses={304: {"description": "Not modified"}, **problems("not-found", "no-plan-yet")},
)
def get_replan_file(replan_id: str, request: Request, store: StoreOf) -> Response:
    """Return the plan to change to as a plan file and nothing else."""
    return plan_file(REPLANS, request, store, replan_id)


add_routes(router, REPLANS, ReplanBody, ReplanResource, ReplanList)
