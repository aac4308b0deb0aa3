"""What a trace looks like, for those who look at it: loads, and the affinity of a pair of layers."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.http.conditional import not_modified
from api.http.problems import ProblemError, problems
from api.http.strict import StrictRoute
from api.resources.affinity.affinity import AffinityTask, affinity_of
from api.resources.affinity.answers import Affinity
from api.resources.context import ServicesOf, StoreOf
from api.resources.helped import look
from api.resources.responses import json_response
from api.resources.traces.stored import StoredTrace
from api.store.rows import TraceRow
from traces import InputError

__all__ = ["router"]

router = APIRouter(prefix="/v1/traces", tags=["traces"], route_class=StrictRoute)

VERSION = 1  # of the way to count: raise it when the same request gets another answer
Layer = Annotated[
    int | None,
    Query(ge=0, le=1 << 31, description="Model layer, to pair with the next one; the first if left out."),
]
Size = Annotated[int, Query(ge=8, le=512, description="Most rows and columns; more experts share cells.")]
Tokens = Annotated[int, Query(ge=1, le=1 << 40, description="Most tokens to count, from the start of the trace.")]


@router.get(
    "/{trace_id}/affinity",
    response_model=Affinity,
    summary="Look at loads and affinity",
    responses={304: {"description": "Not modified"}, **problems("not-found", "took-too-long")},
)
async def get_affinity(
    trace_id: str,
    request: Request,
    services: ServicesOf,
    store: StoreOf,
    layer: Layer = None,
    size: Size = 128,
    tokens: Tokens = 200_000,
) -> Response:
    """Count loads, and the pairs of experts that tokens use in a layer and in the next one."""
    row = await run_in_threadpool(store.traces.get, trace_id)
    if row is None:
        raise ProblemError("not-found", f"There is no trace {trace_id[:100]!r}.")
    pair = _pair(row, layer)
    # A trace never changes, so what it is counted to is known by what was asked.
    asked = json.dumps([VERSION, row.id, row.facts["hints"], pair, size, tokens], sort_keys=True)
    etag = {"ETag": f'"{hashlib.sha256(asked.encode()).hexdigest()[:32]}"'}
    known = not_modified(request, Response(headers=etag))
    if known.status_code == 304:
        return known
    task = AffinityTask(
        trace=StoredTrace.of(services.settings, row),
        pair=pair,
        size=size,
        tokens=tokens,
    )
    counted = await look(services, row, "The count", affinity_of, task)
    return json_response(Affinity(trace=row.id, **_axes(row, pair, counted)), headers=etag)


def _pair(row: TraceRow, layer: int | None) -> int | None:
    """Return the position of the pair's first layer; None where the trace has no pairs."""
    layers: list[int] = row.facts["layer_ids"]
    if not row.facts["has_affinity"] or len(layers) < 2:
        if layer is not None:
            detail = "The trace has no pairs of layers: it holds counts only, or one layer."
            raise InputError.of("no_pairs", "?layer", detail, "Leave the layer out to get the loads.")
        return None
    if layer is None:
        return 0
    if layer not in layers[:-1]:
        detail = f"No pair of the trace begins with layer {layer}."
        remedy = f"Name a layer from {layers[0]} to {layers[-2]} that the trace has."
        raise InputError.of("unknown_layer", "?layer", detail, remedy)
    return layers.index(layer)


def _axes(row: TraceRow, pair: int | None, counted: dict[str, Any]) -> dict[str, Any]:
    layers: list[int] = row.facts["layer_ids"]
    two = [None, None] if pair is None else layers[pair : pair + 2]
    return {
        "layer_id": two[0],
        "next_layer_id": two[1],
        "num_experts": row.facts["num_experts"],
        "layer_ids": layers[:: counted["layers_per_row"]],
        **counted,
    }
