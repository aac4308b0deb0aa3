"""Routes that refuse ambiguous JSON, encoded bodies and unknown query parameters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, get_args, get_origin

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from api.http.problems import ProblemError
from traces import Violation, Violations

__all__ = ["StrictRoute", "refuse_encoded"]


class StrictRoute(APIRoute):
    """A route whose JSON body has each key once, and whose query has known parameters only."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what serves a request."""
        handle = super().get_route_handler()
        single, repeatable = set[str](), set[str]()
        for parameter in self.dependant.query_params:
            annotation = parameter.field_info.annotation
            is_list = any(get_origin(form) in (list, Sequence) for form in (annotation, *get_args(annotation)))
            (repeatable if is_list else single).add(parameter.alias)

        async def handle_strictly(request: Request) -> Response:
            _check_query(request, single, repeatable)
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_strictly


class _JsonRequest(Request):
    """A request whose JSON is read as strictly as a file."""

    async def json(self) -> Any:
        """Return the body; malformed JSON raises `ProblemError`."""
        refuse_encoded(self)
        try:
            return json.loads((await self.body()).decode("utf-8"), object_pairs_hook=_unique)
        except UnicodeDecodeError:
            detail = "The body is not UTF-8."
        except json.JSONDecodeError as error:
            detail = f"The body is not JSON: {error}."
        except RecursionError:
            detail = "The body is nested too deeply."
        except ValueError:  # Python's limit on the digits of an integer
            detail = "The body has a number of too many digits."
        raise ProblemError("malformed-json", detail)


def refuse_encoded(request: Request) -> None:
    """Raise `ProblemError` if the body is compressed: it would be read as if it were not."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        detail = f"Content-Encoding {encoding[:40]!r} is not supported; send the body as it is."
        raise ProblemError("unsupported-media-type", detail, headers={"Accept-Encoding": "identity"})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        detail = f"The key {key[:100]!r} occurs more than once in an object."
        violation = Violation(code="duplicate_key", pointer="", detail=detail, remedy="Keep one.")
        raise ProblemError("invalid-request", detail, [violation])
    return content


def _check_query(request: Request, single: set[str], repeatable: set[str]) -> None:
    """Refuse a parameter that is misspelt, or given twice where one value counts."""
    found = Violations()
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in single | repeatable:
            known = ", ".join(sorted(single | repeatable)) or "none"
            detail = f"There is no query parameter {name[:100]!r}."
            found.add("unknown_parameter", f"?{name[:100]}", detail, f"Known here: {known}.")
        elif count > 1 and name in single:
            found.add("repeated_parameter", f"?{name}", f"{name} is given {count} times.", "Give it once.")
    found.raise_if_any()
