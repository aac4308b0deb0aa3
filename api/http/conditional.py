"""Conditional requests and waiting: If-None-Match (RFC 9110) and Prefer: wait (RFC 7240)."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response

__all__ = ["matches", "not_modified", "wait_of"]

OF_THE_BODY = (b"content-length", b"content-type")  # a 304 has none
WAIT = re.compile(r"""(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])""", re.IGNORECASE)


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has this version (weak comparison, RFC 9110)."""
    if if_none_match is None:
        return False
    known = {item.strip().removeprefix("W/") for item in if_none_match.split(",")}
    return "*" in known or etag.removeprefix("W/") in known


def not_modified(request: Request, response: Response) -> Response:
    """Return 304 instead, if the client has this version.

    A cache replaces the header fields that it has stored by those of a 304 (RFC 9111, 3.2), so a 304 carries every
    field of the answer that it stands for. If one is left out, `RequestChecks` adds its default, which replaces the
    stored one: the page would come back with the policy of the interface, which lets no script run.
    """
    etag = response.headers["etag"]
    if not matches(request.headers.get("if-none-match"), etag):
        return response
    kept = Response(status_code=304)
    kept.raw_headers = [(name, value) for name, value in response.raw_headers if name not in OF_THE_BODY]
    return kept


def wait_of(request: Request, longest: float) -> float | None:
    """Return the seconds of `Prefer: wait` (RFC 7240), at most `longest`; None if it was not asked for."""
    found = WAIT.search(",".join(request.headers.getlist("prefer")))
    return None if found is None else min(float(found[1]), longest)
