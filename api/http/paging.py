"""Pages of lists: cursors, and the Link field to the next page."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from starlette.requests import Request

from api.http.problems import ProblemError
from traces import Violation

__all__ = ["decode_cursor", "link_next", "next_cursor"]


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
