"""Re-plans: a plan that runs, a trace, and whether to change it, with which few moves."""

from __future__ import annotations

from fastapi import APIRouter

from api.http.strict import StrictRoute
from api.resources.replans.answers import ReplanList, ReplanResource, ReplanSummary
from api.resources.replans.body import ReplanBody
from api.resources.replans.replanning import check_replan
from api.resources.searches.kinds import SearchKind
from api.resources.searches.routes import add_plan_file, add_routes

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


add_plan_file(router, REPLANS, "Return the plan to change to as a plan file and nothing else.")
add_routes(router, REPLANS, ReplanBody, ReplanResource, ReplanList)
