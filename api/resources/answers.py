"""JSON answers: models as responses, times, stored documents."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

__all__ = ["json_response", "loads", "time_of", "time_or_none"]


def json_response(
    content: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None, strong_etag: bool = False
) -> Response:
    """Return a resource as a response; with `strong_etag`, tagged with the digest of its bytes."""
    body = content.model_dump_json().encode()
    fields = dict(headers or {})
    if strong_etag:
        fields["ETag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Response(body, status, fields, "application/json")


def loads(text: str | None) -> dict[str, Any] | None:
    """Read a stored JSON document."""
    content: dict[str, Any] | None = None if text is None else json.loads(text)
    return content


def time_of(seconds: float) -> datetime:
    """Return a time of the store, which counts seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC)


def time_or_none(seconds: float | None) -> datetime | None:
    """Return a time of the store; None where there is none."""
    return None if seconds is None else time_of(seconds)
