"""Query parameters and header fields that several resources take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import Header, Query

from api.resources.schemas import TagName

__all__ = ["Cursor", "Key", "Limit", "Prefer", "Status", "TagQuery"]

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
