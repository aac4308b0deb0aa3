"""Mixtures: traces of several domains, one plan for all of them, and what it costs in each."""

from __future__ import annotations

from fastapi import APIRouter

from api.http.strict import StrictRoute
from api.resources.mixtures.answers import MixtureList, MixtureResource, MixtureSummary
from api.resources.mixtures.body import MixtureBody
from api.resources.mixtures.mixing import check_mixture
from api.resources.searches.kinds import SearchKind
from api.resources.searches.routes import add_plan_file, add_routes

__all__ = ["router"]

router = APIRouter(prefix="/v1/mixtures", tags=["mixtures"], route_class=StrictRoute)
MIXTURES = SearchKind(
    name="mixture",
    finds="plan",
    check=check_mixture,
    retry_after_s=2,
    resource=MixtureResource.of_documents,
    page=lambda rows, cursor: MixtureList(items=[MixtureSummary.of(row) for row in rows], next_cursor=cursor),
)


add_plan_file(router, MIXTURES, "Return the plan for all domains as a plan file and nothing else.")
add_routes(router, MIXTURES, MixtureBody, MixtureResource, MixtureList)
