"""Models as JSON responses."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel
from starlette.responses import Response

__all__ = ["json_response"]


def json_response(
    content: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None, strong_etag: bool = False
) -> Response:
    """Return a resource as a response; with `strong_etag`, tagged with the digest of its bytes."""
    body = content.model_dump_json().encode()
    fields = dict(headers or {})
    if strong_etag:
        fields["ETag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Response(body, status, fields, "application/json")
