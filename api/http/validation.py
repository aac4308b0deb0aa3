"""The framework's validation errors as problem documents, with JSON pointers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from api.http.problems import problem_response
from traces import Violation

__all__ = ["from_validation"]

_CODES = {
    "extra_forbidden": ("unknown_field", "There is no such field.", "Remove it, or correct its name."),
    "missing": ("missing_field", "The field is missing.", "Add it."),
    "model_attributes_type": ("not_an_object", "Expected an object.", "Send an object, or leave the field out."),
}
SHOWN = 100
SEE = "See /openapi.json for what is accepted."


def from_validation(error: RequestValidationError) -> Response:
    """Return the response for a request that does not fit its schema."""
    items: Sequence[Mapping[str, Any]] = error.errors()
    if whole := [item for item in items if item["loc"] == ("body",)]:
        if isinstance(whole[0]["input"], bytes):  # it was not taken for JSON
            return problem_response("unsupported-media-type", "Send JSON with Content-Type: application/json.")
        detail = "The body is not a JSON object."
        violation = Violation(code="not_an_object", pointer="", detail=detail, remedy="Send an object.")
        return problem_response("invalid-request", detail, [violation])
    violations = [_violation(item) for item in items]
    more = f" There are {len(violations)} violations; {SHOWN} are listed." if len(violations) > SHOWN else ""
    return problem_response("invalid-request", violations[0].detail + more, violations[:SHOWN])


def _violation(item: Mapping[str, Any]) -> Violation:
    text = str(item["msg"]).rstrip(".")
    code, detail, remedy = _CODES.get(item["type"], (str(item["type"]), f"{text}.", SEE))
    return Violation(code=code, pointer=_pointer(item["loc"]), detail=detail, remedy=remedy)


def _pointer(location: Sequence[str | int]) -> str:
    """Return a JSON pointer (RFC 6901) into the body, ``?name`` for a query parameter, ``Name:`` for a header field."""
    where, *rest = location
    # `<...>` are the forms that a field may have, not parts of the document.
    steps = [str(step) for step in rest if not (isinstance(step, str) and step.startswith("<") and step.endswith(">"))]
    if where == "query":
        return "?" + ".".join(steps)
    if where == "header":
        return ".".join(steps) + ":"
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
