"""What is wrong with a trace, what that does to a plan, and what to do."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.http.conditional import not_modified
from api.http.problems import ProblemError, problems
from api.http.strict import StrictRoute
from api.resources.context import ServicesOf, StoreOf
from api.resources.findings.answers import FindingsResource
from api.resources.helped import look
from api.resources.responses import json_response
from api.resources.traces.stored import StoredTrace
from traces import check

__all__ = ["router"]

router = APIRouter(prefix="/v1/traces", tags=["traces"], route_class=StrictRoute)

VERSION = 1  # of the rules: raise it when the same trace gets other findings


@router.get(
    "/{trace_id}/findings",
    response_model=FindingsResource,
    summary="Diagnose a trace",
    responses={304: {"description": "Not modified"}, **problems("not-found", "took-too-long")},
)
async def get_findings(trace_id: str, request: Request, services: ServicesOf, store: StoreOf) -> Response:
    """Read the trace from start to end, and say what is wrong with the recording: see `moe-placement check`."""
    row = await run_in_threadpool(store.traces.get, trace_id)
    if row is None:
        raise ProblemError("not-found", f"There is no trace {trace_id[:100]!r}.")
    asked = json.dumps([VERSION, row.id, row.facts["hints"]], sort_keys=True)
    etag = {"ETag": f'"{hashlib.sha256(asked.encode()).hexdigest()[:32]}"'}
    known = not_modified(request, Response(headers=etag))
    if known.status_code == 304:
        return known
    found = await look(services, row, "The diagnosis", _findings, StoredTrace.of(services.settings, row))
    return json_response(FindingsResource(trace=row.id, **found), headers=etag)


def _findings(trace: StoredTrace) -> dict[str, Any]:
    return check(trace.open()).as_dict()
