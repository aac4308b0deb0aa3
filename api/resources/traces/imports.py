"""Traces that the service fetches itself: from folders and addresses that the operator allows, and no others."""

from __future__ import annotations

import stat
import time
import urllib.error
import urllib.request
from http.client import HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from api.http.fetching import direct_opener
from api.http.problems import ProblemError
from api.resources.storage import storage_problem
from api.settings.settings import Settings
from api.store.blobs import Blobs, Incoming
from traces import InputError

__all__ = ["fetch"]

TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 20


def fetch(source: str, settings: Settings, blobs: Blobs) -> Incoming:
    """Copy a file of the machine, or what an address serves, into a file that was received.

    Parameters
    ----------
    source : str
        Absolute path, or http(s) address.
    settings : Settings
        `import_dirs`, `import_urls`, `max_read_s`.
    blobs : Blobs

    Raises
    ------
    InputError
        If the source is not allowed, or can't be read.
    ProblemError
        413 if it is larger than traces may be; 507 if the disk is full.
    """
    deadline = time.monotonic() + settings.max_read_s
    opened = _open_url(source, settings) if "://" in source else _open_path(source, settings)
    incoming = blobs.receive()
    try:
        with opened as stream:
            while data := _read(stream, source):
                if incoming.size + len(data) > settings.max_trace_bytes:
                    raise ProblemError("too-large", f"It is larger than {settings.max_trace_bytes} bytes.")
                if time.monotonic() > deadline:  # a server that sends a byte now and then would hold this thread
                    raise _unreadable(source, f"it did not arrive within {settings.max_read_s:g} s")
                incoming.write(data)
        incoming.finish()
    except OSError as error:
        incoming.discard()
        raise storage_problem(error) from error
    except BaseException:
        incoming.discard()
        raise
    return incoming


def _read(stream: IO[bytes], source: str) -> bytes:
    try:
        # As much as has come: a server that sends a byte now and then must not hide the deadline.
        return stream.read1(CHUNK_BYTES) if isinstance(stream, HTTPResponse) else stream.read(CHUNK_BYTES)
    except OSError as error:
        raise _unreadable(source, str(error)) from error


def _open_path(source: str, settings: Settings) -> IO[bytes]:
    """Open a regular file below an allowed folder, links resolved."""
    try:
        path = Path(source)
        real = path.resolve(strict=True) if path.is_absolute() else None
        allowed = real is not None and any(real.is_relative_to(folder.resolve()) for folder in settings.import_dirs)
        if real is None or not allowed:
            raise _forbidden(source)
        if not stat.S_ISREG(real.stat().st_mode):
            raise _unreadable(source, "it is no regular file")
        return real.open("rb")
    except (OSError, ValueError) as error:
        # What is outside is not told apart from what is not there: nobody learns which files the machine has.
        if isinstance(error, InputError):
            raise
        raise _forbidden(source) from None


def _open_url(source: str, settings: Settings) -> Any:
    if not _is_allowed(source, settings.import_urls):
        raise _forbidden(source)
    opener = direct_opener()
    try:
        request = urllib.request.Request(source, headers={"Accept-Encoding": "identity"})  # noqa: S310  # http(s) only
        return opener.open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        raise _unreadable(source, f"the server answered {error.code}") from None
    except (OSError, ValueError) as error:
        raise _unreadable(source, str(getattr(error, "reason", error))) from None


def _is_allowed(source: str, prefixes: tuple[str, ...]) -> bool:
    """Whether an address begins with an allowed one: same scheme and host to the letter, path below, no way back up."""
    try:
        parts = urlsplit(source)
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or parts.username is not None or parts.password is not None:
        return False
    steps = parts.path.split("/")
    if ".." in steps or "." in steps or "%" in parts.path or "\\" in source or not source.isascii():
        return False
    for prefix in prefixes:
        allowed = urlsplit(prefix)
        below = allowed.path if allowed.path.endswith("/") else f"{allowed.path}/"
        if (parts.scheme, parts.netloc) == (allowed.scheme, allowed.netloc) and parts.path.startswith(below):
            return True
    return False


def _forbidden(source: str) -> InputError:
    remedy = "Upload the file, or ask the operator about import_dirs and import_urls."
    return InputError.of("import_not_allowed", "/source", f"{source[:200]!r} may not be imported.", remedy)


def _unreadable(source: str, reason: str) -> InputError:
    detail = f"{source[:200]!r} can't be read: {reason[:200]}."
    return InputError.of("import_failed", "/source", detail, "Check the source, or upload the file.")
