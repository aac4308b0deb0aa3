"""Traces: upload, list, look, delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.http.conditional import not_modified
from api.http.paging import begin_of, link_next, next_cursor
from api.http.problems import ProblemError, problems
from api.http.strict import StrictRoute
from api.resources.context import Services, ServicesOf, StoreOf
from api.resources.layers import LAYER_LIST, MoeLayers, check_layers, read_layers
from api.resources.parameters import Cursor, Limit, TagQuery
from api.resources.responses import json_response
from api.resources.schemas import LabelsBody, Name
from api.resources.traces.answers import TraceList, TraceResource
from api.resources.traces.receiving import receive_trace
from api.store.rows import ConflictError
from api.store.tenant import TenantStore
from traces import Violation
from traces.formats import READERS
from traces.support.words import Beyond, Phase

__all__ = ["check_format", "router"]

router = APIRouter(prefix="/v1/traces", tags=["traces"], route_class=StrictRoute)

FORMATS = [reader.name for reader in READERS]
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file as it is: a trace or counts in any known format, or a .tar of the files of all ranks, "
        "also as .gz or .zst; or a profile.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    "parameters": [
        {
            "name": "Content-Digest",
            "in": "header",
            "required": False,
            "description": "Digest of the body (RFC 9530): sha-256=:BASE64:, checked before the file is kept.",
            "schema": {"type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"},
        }
    ],
}
ChosenLayers = Annotated[
    str | None,
    Query(
        pattern=LAYER_LIST,
        max_length=20_000,
        description="Only these model layers, such as 0-3; num_experts is theirs. For models whose layers differ in "
        "experts.",
    ),
]
LayerIds = Annotated[
    str | None,
    Query(
        pattern=LAYER_LIST,
        max_length=20_000,
        description="Model layers of the file's layer axis, such as 1-26, if the file does not name them.",
    ),
]


@router.post(
    "",
    status_code=201,
    response_model=TraceResource,
    summary="Upload a trace",
    openapi_extra=UPLOAD,
    responses={
        200: {"model": TraceResource, "description": "The same bytes were uploaded before."},
        **problems(
            "digest-mismatch",
            "trace-differs",
            "too-large",
            "unsupported-media-type",
            "invalid-trace",
            "quota-exceeded",
            "storage-full",
        ),
    },
)
async def upload(
    request: Request,
    services: ServicesOf,
    store: StoreOf,
    name: Annotated[Name | None, Query(description="Name to show, such as the file's.")] = None,
    num_experts: Annotated[
        int | None, Query(ge=1, le=32_767, description="Experts per layer, if the file does not state them.")
    ] = None,
    layer_ids: LayerIds = None,
    layers: ChosenLayers = None,
    top_k: Annotated[
        int | None, Query(ge=1, le=32_767, description="Experts per token, if the file does not state them.")
    ] = None,
    model_layers: Annotated[
        int | None, Query(ge=1, le=100_000, description="Layers of the model, for files that count dense ones.")
    ] = None,
    first_moe_layer: Annotated[
        int | None, Query(ge=0, le=100_000, description="First MoE layer, counted from 0; with model_layers.")
    ] = None,
    moe_layers: MoeLayers = None,
    drop_dummy_rows: Annotated[
        bool, Query(description="Leave out rows that repeat the row before, and rows of a single id.")
    ] = False,
    ids_beyond_experts: Annotated[
        Beyond | None,
        Query(
            description="Ids of num_experts and above, as of fused shared or zero-computation experts: none takes them "
            "as no routed expert; refused if left out."
        ),
    ] = None,
    layer_base: Annotated[
        int | None,
        Query(ge=0, le=1, description="What layers of a Megatron trace are counted from, if it does not tell."),
    ] = None,
    phase: Annotated[Phase | None, Query(description="Only the tokens of one phase, if the file has phases.")] = None,
    tag: TagQuery = (),
    file_format: Annotated[
        str | None,
        Query(alias="format", pattern=f"^({'|'.join(FORMATS)})$", description="Found by content if left out."),
    ] = None,
) -> Response:
    """Upload a file as the raw body. It is read from start to end before it is kept."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type.startswith("multipart/") or media_type == "application/x-www-form-urlencoded":
        detail = "Send the file as the raw body, not as a form, with Content-Type: application/octet-stream."
        raise ProblemError("unsupported-media-type", detail)
    check_layers(model_layers, first_moe_layer=first_moe_layer, moe_layers=moe_layers)
    given: dict[str, Any] = {"format": file_format, "num_experts": num_experts}
    given |= {"layer_ids": read_layers("layer_ids", layer_ids), "moe_layers": read_layers("moe_layers", moe_layers)}
    given |= {"layers": read_layers("layers", layers)}
    given |= {"top_k": top_k, "model_layers": model_layers, "first_moe_layer": first_moe_layer}
    given |= {"drop_dummy_rows": drop_dummy_rows or None, "ids_beyond_experts": ids_beyond_experts}
    given |= {"layer_base": layer_base, "phase": phase}
    hints = {field: value for field, value in given.items() if value is not None}
    row, new = await receive_trace(request, services, store, name, hints, tag)
    headers = {"Location": f"/v1/traces/{row.id}"}
    return json_response(TraceResource.of(row), status=201 if new else 200, headers=headers, strong_etag=True)


@router.get("", response_model=TraceList, summary="List traces", responses=problems())
def list_traces(
    request: Request, store: StoreOf, limit: Limit = 50, cursor: Cursor = None, tag: TagQuery = ()
) -> Response:
    """List the traces, the newest first."""
    rows, more = store.traces.page(limit, begin_of(store, cursor), tag)
    following = next_cursor(store, rows, more)
    page = TraceList(items=[TraceResource.of(row) for row in rows], next_cursor=following)
    return json_response(page, headers=link_next(request, following))


@router.get(
    "/{trace_id}",
    response_model=TraceResource,
    summary="Look at a trace",
    responses={304: {"description": "Not modified"}, **problems("not-found")},
)
def get_trace(trace_id: str, request: Request, store: StoreOf) -> Response:
    """Return what is known about a trace."""
    row = store.traces.get(trace_id)
    if row is None:
        raise ProblemError("not-found", f"There is no trace {trace_id[:100]!r}.")
    return not_modified(request, json_response(TraceResource.of(row), strong_etag=True))


@router.patch("/{trace_id}", response_model=TraceResource, summary="Rename a trace", responses=problems("not-found"))
def label_trace(trace_id: str, body: LabelsBody, store: StoreOf) -> Response:
    """Change the name or the tags of a trace."""
    if not store.traces.label(trace_id, body.model_dump(exclude_unset=True)):
        raise ProblemError("not-found", f"There is no trace {trace_id[:100]!r}.")
    row = store.traces.get(trace_id)
    assert row is not None
    return json_response(TraceResource.of(row), strong_etag=True)


@router.delete(
    "/{trace_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a trace",
    responses=problems("not-found", "trace-in-use"),
)
async def delete_trace(trace_id: str, services: ServicesOf, store: StoreOf) -> Response:
    """Delete a trace and its file. Plans that were made for it stay."""
    await run_in_threadpool(_delete, services, store, trace_id)
    return Response(status_code=204)


def _delete(services: Services, store: TenantStore, trace_id: str) -> None:
    with services.holding:
        try:
            if not store.traces.delete(trace_id):
                raise ProblemError("not-found", f"There is no trace {trace_id[:100]!r}.")
        except ConflictError as conflict:
            raise ProblemError(conflict.slug, conflict.detail) from None
        if not services.store.trace_is_known(trace_id):  # another tenant may have the same bytes
            services.parts.blobs.delete(trace_id)


def check_format(name: str | None) -> None:
    """Refuse a format that there is not."""
    if name is not None and name not in FORMATS:
        detail = f"There is no format {name[:40]!r}."
        violation = Violation(code="format", pointer="/format", detail=detail, remedy=f"Use {', '.join(FORMATS)}.")
        raise ProblemError("invalid-request", detail, [violation])
