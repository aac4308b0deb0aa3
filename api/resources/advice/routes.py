"""Advice: a trace, a machine, a model, and whether a change of placement is worth it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.bodies import in_helper
from api.http.problems import problems
from api.http.strict import StrictRoute
from api.resources.advice.advising import AdviceTask, advice, advice_request
from api.resources.advice.answers import AdviceAnswer
from api.resources.advice.body import AdviceBody
from api.resources.context import ServicesOf, StoreOf
from api.resources.named import plan_content, trace_named
from api.resources.studies import studied
from api.resources.traces.stored import StoredTrace
from api.settings.settings import Settings
from api.store.rows import TraceRow
from api.store.tenant import TenantStore
from traces import Violations

__all__ = ["router"]

router = APIRouter(prefix="/v1/advice", tags=["advice"], route_class=StrictRoute)


@router.post(
    "",
    response_model=AdviceAnswer,
    summary="Say whether a change of placement is worth it",
    responses=problems("malformed-json", "too-large", "unsupported-media-type", "took-too-long"),
)
@in_helper
async def give_advice(body: AdviceBody, request: Request, services: ServicesOf, store: StoreOf) -> Response:
    """Find a plan on one part of the trace, and time it on the other against the plan that runs."""
    return await studied(
        request, services, store, body, what="The advice", prepare=_task, work=advice, answer=AdviceAnswer
    )


def _task(body: AdviceBody, settings: Settings, store: TenantStore) -> tuple[AdviceTask, TraceRow]:
    found = Violations()
    plan = None if body.plan is None else plan_content(store, body.plan, "/plan", found)
    trace = trace_named(store, body.trace, found)
    found.raise_if_any()
    assert trace is not None
    request = advice_request(body, plan, settings.max_read_s / 5)
    workers = settings.threads_per_plan
    return AdviceTask(request=request, trace=StoredTrace.of(settings, trace), workers=workers), trace
