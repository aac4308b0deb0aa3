"""The framework's validation errors as problem documents, with JSON pointers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from api.http.json_text import told
from api.http.problems import problem_response
from traces import Violation

__all__ = ["from_validation"]


def from_validation(error: RequestValidationError) -> Response:
    """Return the response for a request that does not fit its schema."""
    items: Sequence[Mapping[str, Any]] = error.errors()
    if whole := [item for item in items if item["loc"] == ("body",)]:
        if isinstance(whole[0]["input"], bytes):  # it was not taken for JSON
            return problem_response("unsupported-media-type", "Send JSON with Content-Type: application/json.")
        detail = "The body is not a JSON object."
        violation = Violation(code="not_an_object", pointer="", detail=detail, remedy="Send an object.")
        return problem_response("invalid-request", detail, [violation])
    violations = told(items)
    return problem_response("invalid-request", violations[0].detail, violations)
