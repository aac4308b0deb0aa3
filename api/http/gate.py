"""Authentication before everything else: before the body is read, the route is looked for, or a thread is taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy import exc
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.access import Access
from api.http.problems import ProblemError, from_http

__all__ = ["STORE_ERRORS", "Gate", "guarded"]

STORE_ERRORS = (exc.OperationalError, exc.InternalError, exc.TimeoutError)
GUARDED = ("v1", "metrics")


def guarded(path: str) -> bool:
    """Whether a path is not for everybody, whether or not there is anything."""
    return path.split("/", 2)[1:2] in ([name] for name in GUARDED)


class Gate:
    """Middleware that finds out who sends a request, and refuses those who may not ask at all.

    Parameters
    ----------
    app : ASGI application
    access : Access
    on_store : callable
        Returns the answer to a request that failed because the database can't be used.
    """

    def __init__(
        self, app: ASGIApp, access: Access, on_store: Callable[[Request, Exception], Awaitable[Response]]
    ) -> None:
        self.app = app
        self.access = access
        self.on_store = on_store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or not guarded(scope["path"]):
            await self.app(scope, receive, send)
            return
        client = scope.get("client")
        authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        state = scope.setdefault("state", {})
        try:
            state["principal"] = await self.access.authenticate(str(client[0]) if client else "", authorization)
            if "\x00" in scope["path"]:  # PostgreSQL does not even look for it
                raise ProblemError("not-found", "Nothing here has a name with the character NUL.")
        except ProblemError as error:
            await from_http(error)(scope, receive, send)
            return
        except STORE_ERRORS as error:
            await (await self.on_store(Request(scope), error))(scope, receive, send)
            return
        await self.app(scope, receive, send)
