"""Receiving a trace: streamed to disk while it is hashed, checked by a full read, kept only if it is valid."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.http.encodings import decoder
from api.http.problems import ProblemError
from api.resources.context import Services
from api.resources.helped import read_upload
from api.resources.storage import refuse_file_when_full, storage_problem
from api.resources.traces.inspection import inspect
from api.store.blobs import ALGORITHMS, Blobs, Incoming
from api.store.rows import ConflictError, TraceRow
from api.store.tenant import TenantStore
from traces import Violation

__all__ = ["admit", "check_digests", "digests", "receive_trace"]

CHUNK_BYTES = 1 << 20
DIGEST = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)\s*=\s*:([A-Za-z0-9+/=]*):\s*")


async def receive_trace(
    request: Request,
    services: Services,
    store: TenantStore,
    name: str | None,
    hints: Mapping[str, Any],
    tags: Sequence[str] = (),
) -> tuple[TraceRow, bool]:
    """Receive the body of a request as a trace.

    Parameters
    ----------
    request : Request
    services : Services
    store : TenantStore
    name : str or None
    hints : mapping
        format, num_experts, layer_ids, layers, top_k, model_layers, first_moe_layer, moe_layers, drop_dummy_rows,
        ids_beyond_experts, layer_base, phase, as far as they are given.
    tags : sequence of str

    Returns
    -------
    TraceRow
    bool
        Whether it is new.

    Raises
    ------
    ProblemError
    """
    expected = digests(request.headers.getlist("content-digest"))
    refuse_file_when_full(services.settings)
    blobs = services.parts.blobs
    try:
        incoming = await run_in_threadpool(blobs.receive)
    except OSError as error:
        raise storage_problem(error) from error
    try:
        arrived = await _receive(request, incoming, services.settings.max_trace_bytes, expected)
        services.metrics.upload_bytes.inc(incoming.size)
        check_digests(arrived, expected)
        return await admit(services, store, incoming, name, hints, tags)
    finally:
        await run_in_threadpool(incoming.discard)


async def admit(
    services: Services,
    store: TenantStore,
    incoming: Incoming,
    name: str | None,
    hints: Mapping[str, Any],
    tags: Sequence[str] = (),
) -> tuple[TraceRow, bool]:
    """Read a file that has arrived from start to end, and keep it if it is a valid trace; see `receive_trace`."""
    known = await run_in_threadpool(store.traces.get, incoming.blob_id)
    if known is not None:
        facts = known.facts
    else:
        shown, limit = name or "trace", services.settings.max_unpacked_bytes
        work = (inspect, incoming.path, shown, dict(hints), limit)
        facts = await read_upload(services, store.traces.tenant, incoming.size, shown, *work)
    row, new = await run_in_threadpool(_keep, services, store, services.parts.blobs, incoming, name, facts, tags)
    _check_same(row, hints)
    return row, new


async def _receive(request: Request, incoming: Incoming, limit: int, algorithms: Collection[str]) -> dict[str, bytes]:
    """Write the body, unpacked, to the file; return the digests of what was sent, which Content-Digest is about."""
    buffer = bytearray()
    try:
        decode = decoder(request, limit)
        sent = {name: hashlib.new(ALGORITHMS[name]) for name in algorithms}
        async for chunk in request.stream():
            for digest in sent.values():
                digest.update(chunk)
            buffer += decode(chunk)
            if len(buffer) >= CHUNK_BYTES:
                await run_in_threadpool(incoming.write, bytes(buffer))
                buffer.clear()
        buffer += decode(b"", last=True)
        await run_in_threadpool(incoming.write, bytes(buffer))
        await run_in_threadpool(incoming.finish)
    except OSError as error:
        raise storage_problem(error) from error
    return {name: digest.digest() for name, digest in sent.items()}


def _keep(
    services: Services,
    store: TenantStore,
    blobs: Blobs,
    incoming: Incoming,
    name: str | None,
    facts: Mapping[str, Any],
    tags: Sequence[str],
) -> tuple[TraceRow, bool]:
    limit = services.settings.tenant_trace_bytes
    with _told():
        blobs.make_way(incoming)  # it may read all of a large file, so nobody waits for it
    with services.holding:
        known = services.store.trace_is_known(incoming.blob_id)
        with _told():
            blobs.keep(incoming)
        try:
            return store.traces.add(incoming.blob_id, name, incoming.size, facts, tags, limit)
        except ConflictError as conflict:
            if not known:
                blobs.delete(incoming.blob_id)
            raise ProblemError(conflict.slug, conflict.detail) from None


@contextmanager
def _told() -> Iterator[None]:
    """Turn what the disk says into a problem."""
    try:
        yield
    except OSError as error:
        raise storage_problem(error) from error


def _check_same(row: TraceRow, hints: Mapping[str, Any]) -> None:
    """Refuse to answer with a trace that was read in another way than this client asks for."""
    different = [
        Violation(
            code="trace_differs",
            pointer=f"?{field}",
            detail=f"The trace is there with {field} = {str(_fact(row, field))[:200]}.",
            remedy="Leave the parameter out, or delete the trace first.",
        )
        for field, value in hints.items()
        if _fact(row, field) != value
    ]
    if different:
        raise ProblemError("trace-differs", f"Trace {row.id} was read with other parameters.", different)


def _fact(row: TraceRow, field: str) -> Any:
    """Return what the trace turned out to have, or how it was read."""
    return row.facts[field] if field in row.facts else row.facts["hints"].get(field)


def check_digests(arrived: Mapping[str, bytes], expected: Mapping[str, bytes]) -> None:
    """Refuse bytes whose digests are not those that the client states."""
    for algorithm, digest in expected.items():
        if arrived[algorithm] != digest:
            raise ProblemError("digest-mismatch", f"The bytes that arrived have another {algorithm} digest.")


def digests(fields: list[str]) -> dict[str, bytes]:
    """Return the digests of Content-Digest that can be checked; RFC 9530 asks to skip unknown algorithms."""
    found: dict[str, bytes] = {}
    for item in ",".join(fields).split(",") if fields else ():
        match = DIGEST.fullmatch(item)
        if match is None:
            raise ProblemError("digest-mismatch", "Content-Digest can't be read; write sha-256=:BASE64:.")
        if match[1] in ALGORITHMS:
            try:
                found[match[1]] = base64.b64decode(match[2], validate=True)
            except binascii.Error:
                raise ProblemError("digest-mismatch", f"The {match[1]} digest is not base64.") from None
    return found
