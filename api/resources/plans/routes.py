"""Routes of plans."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from starlette.responses import Response

from api.http.bodies import in_helper
from api.http.conditional import not_modified
from api.http.problems import ProblemError, problems
from api.http.strict import StrictRoute
from api.resources.bodies import work_with
from api.resources.context import ServicesOf, StoreOf
from api.resources.layers import MoeLayers, check_layers, layout, read_layers
from api.resources.plans.answers import PlanList, PlanResource, PlanSummary, ValidPlan
from api.resources.plans.exports import (
    FillMissing,
    FirstMoeLayer,
    Force,
    Layer,
    ModelLayers,
    MtpLayers,
    Name,
    PipelineStages,
    WithoutMtp,
)
from api.resources.schemas import PlanBody
from api.resources.searches.kinds import SearchKind
from api.resources.searches.queueing import checked
from api.resources.searches.routes import add_plan_file, add_routes
from api.settings.settings import Settings
from api.store.tenant import TenantStore
from placement import Plan
from placement.engines import check_travel, engine_of_export
from placement.exports import EXPORTS, Context, export_named
from traces import InputError

__all__ = ["PLANS", "router"]

router = APIRouter(prefix="/v1/plans", tags=["plans"], route_class=StrictRoute)

FormatName = Annotated[
    str,
    PathParameter(
        json_schema_extra={
            "enum": [known.name for known in EXPORTS],
            "x-enum-descriptions": [known.engine for known in EXPORTS],  # a convention of generators; the page shows it
        }
    ),
]
PLANS = SearchKind(
    name="plan",
    finds="plan",
    check=checked,
    retry_after_s=1,
    resource=PlanResource.of_documents,
    page=lambda rows, cursor: PlanList(items=[PlanSummary.of(row) for row in rows], next_cursor=cursor),
)


@router.post(
    "/validate",
    response_model=ValidPlan,
    summary="Check a request",
    responses=problems("malformed-json", "too-large", "unsupported-media-type"),
)
@in_helper
async def validate_plan(body: PlanBody, request: Request, services: ServicesOf, store: StoreOf) -> Response:
    """Check a request as `POST /v1/plans` does, and queue nothing. All violations are reported at once."""
    content = await work_with(request, services, store, body, _validated)
    return Response(content, media_type="application/json")


def _validated(body: PlanBody, settings: Settings, store: TenantStore) -> str:
    return ValidPlan(request=checked(body, settings, store).request).model_dump_json()


add_plan_file(router, PLANS, "Return the best plan so far as a plan file and nothing else.")


@router.get(
    "/{plan_id}/exports/{format}",
    response_class=Response,
    summary="Take the file that an engine loads",
    responses={
        200: {"description": "The file; `Content-Disposition` names it.", "content": {"application/octet-stream": {}}},
        304: {"description": "Not modified"},
        **problems("not-found", "no-plan-yet"),
    },
)
def export_plan(
    plan_id: str,
    format: FormatName,  # noqa: A002
    request: Request,
    store: StoreOf,
    model_layers: ModelLayers = None,
    first_moe_layer: FirstMoeLayer = None,
    moe_layers: MoeLayers = None,
    mtp_layers: MtpLayers = None,
    fill_missing: FillMissing = False,
    without_mtp: WithoutMtp = False,
    layer: Layer = None,
    model_class: Name = None,
    mtp_model_class: Name = None,
    model_name: Name = None,
    pipeline_stages: PipelineStages = None,
    force: Force = False,
) -> Response:
    """Return the best plan so far as the placement file of an engine, if the engine would load it as it is meant.

    A plan for tokens that travel otherwise than in that engine is refused, unless `force` is given.
    """
    try:
        export = export_named(format)
    except InputError as error:
        raise ProblemError("not-found", error.violations[0].detail + " " + error.violations[0].remedy) from None
    check_layers(model_layers, first_moe_layer=first_moe_layer, moe_layers=moe_layers, mtp_layers=mtp_layers)
    context = Context(
        model=layout(model_layers, first_moe_layer, read_layers("moe_layers", moe_layers), mtp_layers),
        fill_missing=fill_missing,
        without_mtp=without_mtp,
        layer=layer,
        model_class=model_class,
        mtp_model_class=mtp_model_class,
        model_name=model_name,
        pipeline_stages=None if pipeline_stages is None else tuple(map(int, pipeline_stages.split(","))),
    )
    _, text = PLANS.found(store, plan_id)
    plan = Plan.from_dict(json.loads(text))
    engine = engine_of_export(export.name)
    if engine is not None and not force:
        check_travel(plan.provenance, engine)
    content = export.write(plan, context).content
    headers = {
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        "Content-Disposition": f'attachment; filename="{plan_id[:60]}-{export.name}{export.suffix}"',
    }
    return not_modified(request, Response(content, 200, headers, "application/octet-stream"))


# The first route of a path tells which methods it takes, so those of every id come after those of words.
add_routes(router, PLANS, PlanBody, PlanResource, PlanList)
