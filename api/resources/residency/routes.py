"""Residency: a trace, a share of its experts, and which of them should stay."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.bodies import in_helper
from api.http.problems import problems
from api.http.strict import StrictRoute
from api.resources.context import ServicesOf, StoreOf
from api.resources.named import trace_named
from api.resources.residency.answers import Residency
from api.resources.residency.asking import ResidencyTask, residency, residency_request
from api.resources.residency.body import ResidencyBody
from api.resources.studies import studied
from api.resources.traces.stored import StoredTrace
from api.settings.settings import Settings
from api.store.rows import TraceRow
from api.store.tenant import TenantStore
from traces import Violations

__all__ = ["router"]

router = APIRouter(prefix="/v1/residency", tags=["residency"], route_class=StrictRoute)


@router.post(
    "",
    response_model=Residency,
    summary="Say which experts should stay in memory",
    responses=problems("malformed-json", "too-large", "unsupported-media-type", "took-too-long"),
)
@in_helper
async def run_policies(body: ResidencyBody, request: Request, services: ServicesOf, store: StoreOf) -> Response:
    """Fit policies on one part of the trace, and run them on the other beside the optimum that knows the future."""
    return await studied(
        request, services, store, body, what="The simulation", prepare=_task, work=residency, answer=Residency
    )


def _task(body: ResidencyBody, settings: Settings, store: TenantStore) -> tuple[ResidencyTask, TraceRow]:
    found = Violations()
    trace = trace_named(store, body.trace, found)
    found.raise_if_any()
    assert trace is not None
    return ResidencyTask(request=residency_request(body), trace=StoredTrace.of(settings, trace)), trace
