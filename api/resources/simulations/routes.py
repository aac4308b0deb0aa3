"""Simulations: a series, a machine, and what policies of re-planning would have taken on it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.http.problems import problems
from api.http.strict import StrictRoute
from api.resources.context import StoreOf
from api.resources.searches.kinds import SearchKind, plan_file
from api.resources.searches.routes import add_routes
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


@router.get(
    "/{simulation_id}/plan",
    response_model=dict[str, Any],
    summary="Take the plan file of a simulation",
    responses={304: {"description": "Not modified"}, **problems("not-found", "no-plan-yet")},
)
def get_simulation_file(simulation_id: str, request: Request, store: StoreOf) -> Response:
    """Return the plan that the gate would run next as a plan file and nothing else."""
    return plan_file(SIMULATIONS, request, store, simulation_id)


add_routes(router, SIMULATIONS, SimulationBody, SimulationResource, SimulationList)
