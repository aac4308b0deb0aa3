"""Simulations: a series, a machine, and what policies of re-planning would have taken on it."""

from __future__ import annotations

from fastapi import APIRouter

from api.http.strict import StrictRoute
from api.resources.searches.kinds import SearchKind
from api.resources.searches.routes import add_plan_file, add_routes
from api.resources.simulations.answers import SimulationList, SimulationResource, SimulationSummary
from api.resources.simulations.body import SimulationBody
from api.resources.simulations.simulating import check_simulation

__all__ = ["router"]

router = APIRouter(prefix="/v1/simulations", tags=["simulations"], route_class=StrictRoute)
SIMULATIONS = SearchKind(
    name="simulation",
    finds="plan",
    check=check_simulation,
    retry_after_s=2,
    resource=SimulationResource.of_documents,
    page=lambda rows, cursor: SimulationList(items=[SimulationSummary.of(row) for row in rows], next_cursor=cursor),
)


add_plan_file(router, SIMULATIONS, "Return the plan that the gate would run next as a plan file and nothing else.")
add_routes(router, SIMULATIONS, SimulationBody, SimulationResource, SimulationList)
