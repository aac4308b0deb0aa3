"""Conditional requests and waiting: If-None-Match (RFC 9110) and Prefer: wait (RFC 7240)."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response

__all__ = ["matches", "not_modified", "wait_of"]

WAIT = re.compile(r"""(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])""", re.IGNORECASE)


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has this version (weak comparison, RFC 9110)."""
    if if_none_match is None:
        return False
    known = {item.strip().removeprefix("W/") for item in if_none_match.split(",")}
    return "*" in known or etag.removeprefix("W/") in known


def not_modified(request: Request, response: Response) -> Response:
    """Return 304 instead, if the client has this version."""
    etag = response.headers["etag"]
    if not matches(request.headers.get("if-none-match"), etag):
        return response
    kept = {name: value for name in ("etag", "retry-after", "vary") if (value := response.headers.get(name))}
    return Response(status_code=304, headers=kept)


def wait_of(request: Request, longest: float) -> float | None:
    """Return the seconds of `Prefer: wait` (RFC 7240), at most `longest`; None if it was not asked for."""
    found = WAIT.search(",".join(request.headers.getlist("prefer")))
    return None if found is None else min(float(found[1]), longest)
