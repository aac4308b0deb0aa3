"""Routes that refuse ambiguous JSON, encoded bodies and unknown query parameters."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, get_args, get_origin

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from api.http.bodies import LIGHT_BYTES, Bodies, is_for_helper, unread
from api.http.json_text import read_json
from api.http.problems import ProblemError
from traces import Violations

__all__ = ["StrictRoute", "refuse_encoded"]

BODY_S = 60.0  # a body that is all needed comes within it, or is given up


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
        model: Any = None if self.body_field is None else self.body_field.field_info.annotation

        elsewhere = is_for_helper(self.endpoint)

        async def handle_strictly(request: Request) -> Response:
            _check_query(request, single, repeatable)
            if model is None:
                return await handle(request)
            bodies: Bodies = request.app.state.services.bodies
            async with bodies.turn(request) as turn:
                request.state.turn = turn
                return await handle(_JsonRequest(request, bodies, model, elsewhere))

        return handle_strictly


class _JsonRequest(Request):
    """A request whose JSON is read as strictly as a file, and off the event loop if it is large."""

    def __init__(self, request: Request, bodies: Bodies, model: type[BaseModel], elsewhere: bool) -> None:
        super().__init__(request.scope, request.receive)
        self._bodies, self._model, self._elsewhere = bodies, model, elsewhere

    async def body(self) -> bytes:
        """Return the body, if it comes in time."""
        try:
            async with asyncio.timeout(BODY_S):
                return await super().body()
        except TimeoutError:
            detail = f"The body did not arrive within {BODY_S:g} s."
            raise ProblemError("request-timeout", detail, headers={"Connection": "close"}) from None

    async def json(self) -> Any:
        """Return the body, as its model, or what stands for it, if it is large; `ProblemError` if it is no JSON."""
        refuse_encoded(self)
        content = await self.body()
        if len(content) <= LIGHT_BYTES:
            return read_json(content)
        if self._elsewhere:
            return unread(self, content, self._model)
        return await self._bodies.read(content, self._model)


def refuse_encoded(request: Request) -> None:
    """Raise `ProblemError` if the body is compressed: it would be read as if it were not."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        detail = f"Content-Encoding {encoding[:40]!r} is not supported; send the body as it is."
        raise ProblemError("unsupported-media-type", detail, headers={"Accept-Encoding": "identity"})


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
