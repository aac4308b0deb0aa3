"""What the routes have in common: pages, conditional requests, waiting, and the errors that they declare."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Header, Query
from starlette.requests import Request
from starlette.responses import Response

from api.http.problems import CATALOGUE, MEDIA_TYPE, ProblemError
from api.resources.schemas import TagName
from traces import Violation

__all__ = [
    "Cursor",
    "Key",
    "Limit",
    "Prefer",
    "Status",
    "TagQuery",
    "decode_cursor",
    "link_next",
    "matches",
    "next_cursor",
    "not_modified",
    "problems",
    "wait_of",
]

Limit = Annotated[int, Query(ge=1, le=200, description="Items per page.")]
TagQuery = Annotated[
    Sequence[TagName], Query(max_length=16, description="Words to find it by; in a list, only what has all of them.")
]
Cursor = Annotated[str | None, Query(pattern="^[A-Za-z0-9_-]{1,40}$", description="`next_cursor` of the page before.")]
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Prefer = Annotated[
    str | None, Header(description="`wait=20`: answer when the plan is finished, or after 20 seconds (RFC 7240).")
]
Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern="^[!-~]+$",
        description="A request that is sent again with the same key makes no second plan.",
    ),
]
OF_THE_BODY = (b"content-length", b"content-type")  # a 304 has none
WAIT = re.compile(r"""(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])""", re.IGNORECASE)


def problems(*slugs: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of a route that can fail like this; what any route can is included."""
    found: dict[int | str, dict[str, Any]] = {}
    always = (
        "bad-request",
        "unauthorized",
        "forbidden",
        "forbidden-origin",
        "misdirected",
        "invalid-request",
        "too-many-requests",
        "unavailable",
    )
    for slug in dict.fromkeys((*slugs, *always)):
        kind = CATALOGUE[slug]
        text = found[kind.status]["description"] + " / " if kind.status in found else ""
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        found[kind.status] = {"description": text + kind.title, "content": content}
    return found


def next_cursor(rows: list[Any], limit: int) -> str | None:
    """Return the cursor for the page after `rows`, which were asked for with one more than `limit`."""
    if len(rows) <= limit:
        return None
    return base64.urlsafe_b64encode(f"s{rows[limit - 1].seq}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> int | None:
    """Return the position of a cursor."""
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        if re.fullmatch(r"s\d{1,18}", text):
            return int(text[1:])
    except (binascii.Error, ValueError):
        pass
    violation = Violation(code="cursor", pointer="?cursor", detail="This is no cursor of ours.", remedy="Leave it out.")
    raise ProblemError("invalid-request", "The cursor is not one of ours.", [violation])


def link_next(request: Request, cursor: str | None) -> dict[str, str]:
    """Return the Link field to the next page."""
    if cursor is None:
        return {}
    return {"Link": f'<{request.url.include_query_params(cursor=cursor)}>; rel="next"'}


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has this version (weak comparison, RFC 9110)."""
    if if_none_match is None:
        return False
    known = {item.strip().removeprefix("W/") for item in if_none_match.split(",")}
    return "*" in known or etag.removeprefix("W/") in known


def not_modified(request: Request, response: Response) -> Response:
    """Return 304 instead, if the client has this version.

    A cache replaces the header fields that it has stored by those of a 304 (RFC 9111, 3.2), so a 304 carries every
    field of the answer that it stands for. If one is left out, the guard adds its default, which then replaces the
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
