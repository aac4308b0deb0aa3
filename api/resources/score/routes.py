"""Score analysis: which layers, experts and GPUs the cost of a plan comes from."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.http.conditional import not_modified
from api.http.problems import ProblemError, problems
from api.http.strict import StrictRoute
from api.resources.context import Services, ServicesOf, StoreOf
from api.resources.helped import look
from api.resources.plans.routes import PLANS
from api.resources.responses import json_response
from api.resources.score.answers import ScoreAnalysis
from api.resources.score.scoring import ScoreTask, score_of
from api.resources.traces.stored import StoredTrace
from api.store.rows import TraceRow
from api.store.tenant import TenantStore
from traces import InputError

__all__ = ["router"]

router = APIRouter(prefix="/v1/plans", tags=["plans"], route_class=StrictRoute)

VERSION = 1  # of the way to count: raise it when the same request gets another answer
Layer = Annotated[
    int | None,
    Query(ge=0, le=1 << 31, description="Model layer whose traffic is shown; the one with most if left out."),
]
Top = Annotated[int, Query(ge=1, le=1000, description="Most experts, pairs and replicas to name.")]


@router.get(
    "/{plan_id}/score",
    response_model=ScoreAnalysis,
    summary="See where the score comes from",
    responses={304: {"description": "Not modified"}, **problems("not-found", "no-plan-yet", "took-too-long")},
)
async def get_score(
    plan_id: str, request: Request, services: ServicesOf, store: StoreOf, layer: Layer = None, top: Top = 20
) -> Response:
    """Take the score of the best plan so far apart: terms, layers with their bounds, GPUs, experts and replicas."""
    task, trace = await run_in_threadpool(_task, services, store, plan_id, layer, top)
    # Plan, request and trace decide the answer.
    asked = json.dumps([VERSION, plan_id, task.plan, task.trace.facts["hints"], layer, top], sort_keys=True)
    etag = {"ETag": f'"{hashlib.sha256(asked.encode()).hexdigest()[:32]}"'}
    known = not_modified(request, Response(headers=etag))
    if known.status_code == 304:
        return known
    found = await look(services, trace, "The analysis", score_of, task)
    return json_response(ScoreAnalysis(plan=plan_id, **found), headers=etag)


def _task(
    services: Services, store: TenantStore, plan_id: str, layer: int | None, top: int
) -> tuple[ScoreTask, TraceRow]:
    row, text = PLANS.found(store, plan_id)
    trace = store.traces.get(row.request["trace"])
    if trace is None:
        detail = f"The trace of plan {plan_id} was deleted; its score is counted from the trace. Upload it again."
        raise ProblemError("not-found", detail)
    layers: list[int] = trace.facts["layer_ids"]
    if layer is not None and layer not in layers:
        detail = f"The trace has no layer {layer}."
        raise InputError.of("unknown_layer", "?layer", detail, f"Name a layer from {layers[0]} to {layers[-1]}.")
    task = ScoreTask(
        plan=json.loads(text),
        request=row.request,
        layer=layer,
        top=top,
        trace=StoredTrace.of(services.settings, trace),
        workers=services.settings.threads_per_plan,
    )
    return task, trace
