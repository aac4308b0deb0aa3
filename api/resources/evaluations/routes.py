"""Evaluations: a plan, a trace, and what its tokens do."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.bodies import in_helper
from api.http.problems import problems
from api.http.strict import StrictRoute
from api.resources.context import ServicesOf, StoreOf
from api.resources.evaluation_body import EvaluationBody
from api.resources.evaluations.answers import ReplayAnswer
from api.resources.evaluations.evaluating import Replay, replay, replay_of
from api.resources.named import kind_of, plan_content, trace_named
from api.resources.studies import studied
from api.resources.topologies.named import with_topology
from api.resources.traces.stored import StoredTrace
from api.settings.settings import Settings
from api.store.rows import TraceRow
from api.store.tenant import TenantStore
from traces import Violations

__all__ = ["router"]

router = APIRouter(prefix="/v1/evaluations", tags=["evaluations"], route_class=StrictRoute)


@router.post(
    "",
    response_model=ReplayAnswer,
    summary="Replay a trace through a plan",
    responses=problems("malformed-json", "too-large", "unsupported-media-type", "took-too-long"),
)
@in_helper
async def evaluate_plan(body: EvaluationBody, request: Request, services: ServicesOf, store: StoreOf) -> Response:
    """Count what crosses GPUs and nodes, and who waits, for every token; of counts, the expected loads of the GPUs."""
    return await studied(
        request, services, store, body, what="The replay", prepare=_task, work=replay, answer=ReplayAnswer
    )


def _task(body: EvaluationBody, settings: Settings, store: TenantStore) -> tuple[Replay, TraceRow]:
    body, found = with_topology(store, body), Violations()
    plan, request = None, None
    if isinstance(body.plan, str):
        plan = plan_content(store, body.plan, "/plan", found)
        if plan is not None and kind_of(body.plan) == "plan" and (row := store.plans.get(body.plan)) is not None:
            request = row.request
    else:
        plan = body.plan.model_dump(exclude_unset=True)
    trace = trace_named(store, body.trace, found)
    found.raise_if_any()
    assert plan is not None
    assert trace is not None
    stored, workers = StoredTrace.of(settings, trace), settings.threads_per_plan
    return replay_of(body, plan, request, trace=stored, workers=workers), trace
