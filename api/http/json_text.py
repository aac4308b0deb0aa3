"""JSON as the service reads it: each key once, not nested without end; what does not fit its schema, told in full."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from api.http.problems import ProblemError
from traces import Violation, Violations

__all__ = ["read_json", "told"]

_CODES = {
    "extra_forbidden": ("unknown_field", "There is no such field.", "Remove it, or correct its name."),
    "missing": ("missing_field", "The field is missing.", "Add it."),
    "model_attributes_type": ("not_an_object", "Expected an object.", "Send an object, or leave the field out."),
}
SEE = "See /openapi.json for what is accepted."


def read_json(content: bytes) -> Any:
    """Return what a text says; `ProblemError` if it is no JSON, or has a key twice."""
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError:
        detail = "The body is not UTF-8."
    except json.JSONDecodeError as error:
        detail = f"The body is not JSON: {error}."
    except RecursionError:
        detail = "The body is nested too deeply."
    except ValueError:  # Python's limit on the digits of an integer
        detail = "The body has a number of too many digits."
    raise ProblemError("malformed-json", detail)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        detail = f"The key {key[:100]!r} occurs more than once in an object."
        violation = Violation(code="duplicate_key", pointer="", detail=detail, remedy="Keep one.")
        raise ProblemError("invalid-request", detail, [violation])
    return content


def told(items: Sequence[Mapping[str, Any]]) -> tuple[Violation, ...]:
    """Return violations for what does not fit a schema, as pydantic lists it below ``body``, ``query``, ``header``."""
    found = Violations()
    for item in items:
        if found.enough():
            found.more, found.stopped = len(items) - len(found.found), False
            break
        text = str(item["msg"]).rstrip(".")
        code, detail, remedy = _CODES.get(item["type"], (str(item["type"]), f"{text}.", SEE))
        found.add(code, _pointer(item["loc"]), detail, remedy)
    return found.error().violations


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
