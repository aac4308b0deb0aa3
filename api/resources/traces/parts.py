"""Uploads in parts: a file of many gigabytes that survives a lost connection, and a restart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.http.problems import ProblemError
from api.resources.storage import storage_problem

__all__ = ["append", "offset_of"]

CHUNK_BYTES = 1 << 20


def offset_of(path: Path) -> int:
    """Return how many bytes have arrived."""
    return path.stat().st_size if path.exists() else 0


async def append(request: Request, path: Path, offset: int, limit: int, beyond: ProblemError) -> int:
    """Append a request's body to what has arrived, and make it durable; return the new offset.

    A connection that is lost half-way keeps what came before: the client asks for the offset and goes on from there.

    Parameters
    ----------
    request : Request
    path : Path
    offset : int
        Where the body begins, as the client sees it.
    limit : int
        Most bytes of the whole file.
    beyond : ProblemError
        What is told above the limit.

    Raises
    ------
    ProblemError
        409 if the offset is another, `beyond`, 507 if the disk is full.
    """
    try:
        file = await run_in_threadpool(_open, path, offset)
        try:
            buffer, size = bytearray(), offset
            async for chunk in request.stream():
                buffer += chunk
                if size + len(buffer) > limit:
                    raise beyond
                if len(buffer) >= CHUNK_BYTES:
                    size += await run_in_threadpool(file.write, bytes(buffer))
                    buffer.clear()
            size += await run_in_threadpool(file.write, bytes(buffer))
        finally:
            await run_in_threadpool(_close, file)
    except OSError as error:
        raise storage_problem(error) from error
    return size


def _open(path: Path, offset: int) -> IO[bytes]:
    here = offset_of(path)
    if here != offset:
        detail = f"{here} bytes have arrived, not {offset}."
        raise ProblemError("offset-differs", detail, headers={"Upload-Offset": str(here)})
    return path.open("ab", buffering=0)


def _close(file: IO[bytes]) -> None:
    try:
        os.fsync(file.fileno())
    finally:
        file.close()
