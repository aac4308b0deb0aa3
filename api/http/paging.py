"""Pages of lists: where one begins, and the Link field to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from api.http.problems import ProblemError
from api.store.tenant import TenantStore
from traces import Violation

__all__ = ["begin_of", "link_next", "next_cursor"]


def begin_of(store: TenantStore, cursor: str | None) -> int | None:
    """Return the position of a cursor; None is the first page's."""
    if cursor is None:
        return None
    position = store.cursors.position(cursor)
    if position is None:
        detail = "This is no cursor of ours."
        violation = Violation(code="cursor", pointer="?cursor", detail=detail, remedy="Leave it out.")
        raise ProblemError("invalid-request", "The cursor is not one of ours.", [violation])
    return position


def next_cursor(store: TenantStore, rows: Sequence[Any], more: bool) -> str | None:
    """Return the cursor for the page after `rows`."""
    return store.cursors.after(rows[-1].seq) if more else None


def link_next(request: Request, cursor: str | None) -> dict[str, str]:
    """Return the Link field to the next page."""
    if cursor is None:
        return {}
    return {"Link": f'<{request.url.include_query_params(cursor=cursor)}>; rel="next"'}
