"""Other ways in for a trace: in parts that can be resumed, or fetched by the service itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.http.problems import ProblemError, problems
from api.http.strict import StrictRoute, refuse_encoded
from api.resources.context import Services, ServicesOf, StoreOf
from api.resources.helped import in_turn
from api.resources.reading import ImportBody, UploadBody
from api.resources.responses import json_response
from api.resources.storage import refuse_file_when_full
from api.resources.traces.answers import TraceResource, UploadResource
from api.resources.traces.imports import fetch
from api.resources.traces.parts import append, offset_of
from api.resources.traces.receiving import admit, check_digests, digests
from api.resources.traces.routes import check_format
from api.store.rows import ConflictError, TraceRow, UploadRow
from api.store.tenant import TenantStore

__all__ = ["router"]

router = APIRouter(tags=["traces"], route_class=StrictRoute)

PART: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "description": "The next bytes of the file; nothing is a part too.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
}
Offset = Annotated[int, Header(alias="Upload-Offset", ge=0, le=1 << 62, description="Where the part begins.")]
KEPT = {
    200: {"model": TraceResource, "description": "The same bytes were uploaded before."},
    **problems(
        "not-found", "digest-mismatch", "trace-differs", "too-large", "invalid-trace", "quota-exceeded", "storage-full"
    ),
}


@router.post(
    "/v1/uploads",
    status_code=201,
    response_model=UploadResource,
    summary="Begin an upload in parts",
    responses=problems("malformed-json", "too-large", "unsupported-media-type", "quota-exceeded"),
)
def begin_upload(body: UploadBody, services: ServicesOf, store: StoreOf) -> Response:
    """Begin an upload in parts. Send them with PATCH, each where the last one ended, and finish."""
    settings = services.settings
    check_format(body.format)
    if body.bytes is not None and body.bytes > settings.max_trace_bytes:
        raise ProblemError("too-large", f"{body.bytes} bytes are more than {settings.max_trace_bytes}.")
    hints = {"reading": body.hints, "tags": body.tags}
    expires_at = time.time() + 3600 * settings.upload_hours
    try:
        row = store.uploads.add(body.name, hints, body.bytes, expires_at, settings.tenant_open_uploads)
    except ConflictError as conflict:
        raise ProblemError(conflict.slug, conflict.detail) from None
    return _shown(services, row, status=201)


@router.get(
    "/v1/uploads/{upload_id}",
    response_model=UploadResource,
    summary="Look at an upload in parts",
    responses=problems("not-found"),
)
def get_upload(upload_id: str, services: ServicesOf, store: StoreOf) -> Response:
    """Return how much has arrived, to go on from there. HEAD has it in `Upload-Offset`."""
    return _shown(services, _upload(store, upload_id))


@router.patch(
    "/v1/uploads/{upload_id}",
    status_code=204,
    response_class=Response,
    summary="Send a part",
    openapi_extra=PART,
    responses=problems(
        "not-found", "offset-differs", "too-large", "unsupported-media-type", "quota-exceeded", "storage-full"
    ),
)
async def send_part(
    upload_id: str, request: Request, services: ServicesOf, store: StoreOf, upload_offset: Offset
) -> Response:
    """Append a part. What arrived before a connection was lost is kept: ask for the offset and go on."""
    refuse_encoded(request)
    row = await run_in_threadpool(_upload, store, upload_id)
    limit = services.settings.max_trace_bytes if row.bytes is None else row.bytes
    with _turn(services, upload_id):
        refuse_file_when_full(services.settings)
        room = await run_in_threadpool(_room, services, store, upload_id)
        beyond = ProblemError("too-large", f"The file is larger than {limit} bytes.", headers={"Connection": "close"})
        if room < limit:
            limit, detail = room, "Your traces and open uploads would have more bytes than your tenant may keep."
            beyond = ProblemError("quota-exceeded", detail, headers={"Connection": "close"})
        offset = await append(request, services.parts.blobs.part(upload_id), upload_offset, limit, beyond)
        services.metrics.upload_bytes.inc(offset - upload_offset)
    return Response(status_code=204, headers={"Upload-Offset": str(offset)})


@router.post(
    "/v1/uploads/{upload_id}/finish",
    status_code=201,
    response_model=TraceResource,
    summary="Finish an upload in parts",
    responses={**KEPT, **problems("not-found", "not-complete", "digest-mismatch", "trace-differs", "invalid-trace")},
)
async def finish_upload(upload_id: str, request: Request, services: ServicesOf, store: StoreOf) -> Response:
    """Read the file from start to end, and keep it if it is a valid trace. `Repr-Digest` (RFC 9530) is checked."""
    row = await run_in_threadpool(_upload, store, upload_id)
    expected = digests(request.headers.getlist("repr-digest"))
    blobs = services.parts.blobs
    with _turn(services, upload_id):
        offset = await run_in_threadpool(offset_of, blobs.part(upload_id))
        if offset == 0 or (row.bytes is not None and offset != row.bytes):
            detail = f"{offset} bytes have arrived" + (f" of {row.bytes}." if row.bytes else ".")
            raise ProblemError("not-complete", detail, headers={"Upload-Offset": str(offset)})
        incoming = await run_in_threadpool(blobs.take_part, upload_id, expected)
        check_digests({name: incoming.digest(name) for name in expected}, expected)
        hints: dict[str, Any] = row.hints
        found, new = await admit(services, store, incoming, row.name, hints["reading"], hints["tags"])
        await run_in_threadpool(_forget, services, store, upload_id)
    return _kept(found, new)


@router.delete(
    "/v1/uploads/{upload_id}",
    status_code=204,
    response_class=Response,
    summary="Give up an upload in parts",
    responses=problems("not-found"),
)
async def delete_upload(upload_id: str, services: ServicesOf, store: StoreOf) -> Response:
    """Forget what has arrived."""
    await run_in_threadpool(_upload, store, upload_id)
    with _turn(services, upload_id):
        await run_in_threadpool(_forget, services, store, upload_id)
    return Response(status_code=204)


@router.post(
    "/v1/imports",
    status_code=201,
    response_model=TraceResource,
    summary="Import a trace",
    responses={
        **KEPT,
        **problems("malformed-json", "trace-differs", "too-large", "invalid-trace", "quota-exceeded", "storage-full"),
    },
)
async def import_trace(body: ImportBody, services: ServicesOf, store: StoreOf) -> Response:
    """Fetch a trace from a folder or an address that the operator allows (`import_dirs`, `import_urls`)."""
    check_format(body.format)
    refuse_file_when_full(services.settings)
    async with in_turn(services.parts.imports, store.traces.tenant):
        incoming = await run_in_threadpool(fetch, body.source, services.settings, services.parts.blobs)
    services.metrics.upload_bytes.inc(incoming.size)
    try:
        row, new = await admit(services, store, incoming, body.name, body.hints, body.tags)
    finally:
        await run_in_threadpool(incoming.discard)
    return _kept(row, new)


@contextmanager
def _turn(services: Services, upload_id: str) -> Iterator[None]:
    """Let one request at a time change an upload; a second one is told to ask again. Runs in the event loop only."""
    if upload_id in services.uploading:
        raise ProblemError("offset-differs", "Another request sends to this upload.", headers={"Retry-After": "1"})
    services.uploading.add(upload_id)
    try:
        yield
    finally:
        services.uploading.discard(upload_id)


def _upload(store: TenantStore, upload_id: str) -> UploadRow:
    row = store.uploads.get(upload_id)
    if row is None:
        raise ProblemError("not-found", f"There is no upload {upload_id[:100]!r}.")
    return row


def _room(services: Services, store: TenantStore, upload_id: str) -> int:
    """Return how many bytes an upload may have, beside what else its tenant has."""
    others = sum(offset_of(services.parts.blobs.part(name)) for name in store.uploads.ids() if name != upload_id)
    return services.settings.tenant_trace_bytes - store.traces.kept_bytes() - others


def _forget(services: Services, store: TenantStore, upload_id: str) -> None:
    store.uploads.delete(upload_id)
    services.parts.blobs.drop_part(upload_id)


def _shown(services: Services, row: UploadRow, status: int = 200) -> Response:
    offset = offset_of(services.parts.blobs.part(row.id))
    headers = {"Upload-Offset": str(offset), "Location": f"/v1/uploads/{row.id}"}
    return json_response(UploadResource.of(row, offset), status=status, headers=headers)


def _kept(row: TraceRow, new: bool) -> Response:
    headers = {"Location": f"/v1/traces/{row.id}"}
    return json_response(TraceResource.of(row), status=201 if new else 200, headers=headers, strong_etag=True)
