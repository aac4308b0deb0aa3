"""Re-plans: a plan that runs, a trace, and whether to change it, with which few moves."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.http.problems import problems
from api.http.strict import StrictRoute
from api.resources.context import Services, ServicesOf, StoreOf
from api.resources.helped import look
from api.resources.named import plan_content, trace_named
from api.resources.replans.answers import ReplanAnswer
from api.resources.replans.body import ReplanBody
from api.resources.replans.replanning import ReplanTask, replan_request, replanned
from api.resources.responses import json_response
from api.resources.topologies.named import with_topology
from api.resources.traces.stored import StoredTrace
from api.store.rows import TraceRow
from api.store.tenant import TenantStore
from traces import InputError, Violations

__all__ = ["router"]

router = APIRouter(prefix="/v1/replans", tags=["replans"], route_class=StrictRoute)


@router.post(
    "",
    response_model=ReplanAnswer,
    summary="Say whether to change the plan that runs, and how with few moves",
    responses=problems("malformed-json", "too-large", "unsupported-media-type", "took-too-long"),
)
async def give_replan(body: ReplanBody, services: ServicesOf, store: StoreOf) -> Response:
    """Find plans on one part of the trace, and judge the one with few moves on the other against what runs."""
    task, trace = await run_in_threadpool(_task, services, store, body)
    result = await look(services, trace, "The re-plan", replanned, task, services.settings.max_job_bytes)
    return json_response(ReplanAnswer.model_validate(result))


def _task(services: Services, store: TenantStore, body: ReplanBody) -> tuple[ReplanTask, TraceRow]:
    found = Violations()
    content = plan_content(store, body.running, "/running", found)
    try:
        body = with_topology(store, body)
    except InputError as error:
        found.extend(error)
        body = body.model_copy(update={"topology": None})
    trace = trace_named(store, body.trace, found)
    request, running = replan_request(body, content, services.settings.max_read_s / 5, found)
    assert trace is not None
    stored = StoredTrace.of(services.settings, trace)
    workers = services.settings.threads_per_plan
    return ReplanTask(request=request, running=running, trace=stored, workers=workers), trace
