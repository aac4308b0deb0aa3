"""Survival: a plan, what may fail, and a proof."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.bodies import in_helper
from api.http.problems import problems
from api.http.strict import StrictRoute
from api.resources.context import ServicesOf, StoreOf
from api.resources.studies import studied
from api.resources.survival.answers import SurvivalAnswer
from api.resources.survival.body import SurvivalBody
from api.resources.survival.proving import proof, survival_task

__all__ = ["router"]

router = APIRouter(prefix="/v1/survival", tags=["survival"], route_class=StrictRoute)


@router.post(
    "",
    response_model=SurvivalAnswer,
    summary="Prove what a plan survives",
    responses=problems("malformed-json", "too-large", "unsupported-media-type", "took-too-long"),
)
@in_helper
async def prove(body: SurvivalBody, request: Request, services: ServicesOf, store: StoreOf) -> Response:
    """Prove that every expert stays alive whatever fails, or name the failing set; and say what to load after each."""
    return await studied(
        request, services, store, body, what="The proof", prepare=survival_task, work=proof, answer=SurvivalAnswer
    )
