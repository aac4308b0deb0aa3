"""Compressed bodies: `Content-Encoding` gzip and zstd, unpacked as they arrive, up to a limit."""

from __future__ import annotations

import zlib
from typing import Any, Protocol

from starlette.requests import Request

from api.http.problems import ProblemError

__all__ = ["ENCODINGS", "Decode", "decoder"]

ENCODINGS = ("gzip", "zstd", "identity")
STEP_BYTES = 4 << 20  # a chunk of a bomb must not unpack to more than this at once


class Decode(Protocol):
    """Unpacks the next chunk of a body."""

    def __call__(self, chunk: bytes, *, last: bool = False) -> bytes:
        """Return what the chunk unpacks to; `last` ends the body."""


def decoder(request: Request, limit: int) -> Decode:
    """Return what unpacks the body of a request.

    Parameters
    ----------
    request : Request
    limit : int
        Most bytes that it may unpack to.

    Raises
    ------
    ProblemError
        415 for an encoding that is not known, or for several; 400 for a damaged body; 413 above the limit.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return _as_it_is
    if encoding in ("gzip", "x-gzip"):
        return _Gzip(limit)
    if encoding == "zstd":
        return _Zstd(limit)
    detail = f"Content-Encoding {encoding[:40]!r} is not supported; use one of {', '.join(ENCODINGS)}."
    raise ProblemError("unsupported-media-type", detail, headers={"Accept-Encoding": ", ".join(ENCODINGS)})


def _as_it_is(chunk: bytes, *, last: bool = False) -> bytes:
    return chunk


class _Unpacking:
    """Counts what was unpacked."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0

    def _count(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._size > self._limit:
            detail = f"The body unpacks to more than {self._limit} bytes."
            raise ProblemError("too-large", detail, headers={"Connection": "close"})
        return data


def _damaged(encoding: str) -> ProblemError:
    return ProblemError("bad-request", f"The body is no whole {encoding} stream. Send it again.")


class _Gzip(_Unpacking):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._member = zlib.decompressobj(wbits=31)
        self._fresh = True

    def __call__(self, chunk: bytes, *, last: bool = False) -> bytes:
        found = bytearray()
        try:
            while chunk:
                if self._member.eof:  # a gzip file may have several members
                    self._member, self._fresh = zlib.decompressobj(wbits=31), True
                found += self._count(self._member.decompress(chunk, STEP_BYTES))
                self._fresh = False
                chunk = self._member.unconsumed_tail or self._member.unused_data
        except zlib.error:
            raise _damaged("gzip") from None
        if last and (self._fresh or not self._member.eof):
            raise _damaged("gzip")
        return bytes(found)


class _Zstd(_Unpacking):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        import zstandard

        self._error: type[Exception] = zstandard.ZstdError
        # A frame's window is memory that the sender chooses: 8 MB is what RFC 8878 asks decoders to support.
        self._make = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj
        self._frame: Any = self._make()
        self._fresh = True

    def __call__(self, chunk: bytes, *, last: bool = False) -> bytes:
        found = bytearray()
        try:
            for start in range(0, len(chunk), 4096):  # a step of a bomb is 4 kB of input
                piece = chunk[start : start + 4096]
                while piece:
                    if self._frame.eof:
                        self._frame, self._fresh = self._make(), True
                    found += self._count(self._frame.decompress(piece))
                    self._fresh = False
                    piece = self._frame.unused_data if self._frame.eof else b""
        except self._error:
            raise _damaged("zstd") from None
        if last and (self._fresh or not self._frame.eof):
            raise _damaged("zstd")
        return bytes(found)
