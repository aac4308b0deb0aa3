"""Middleware that turns away what no route should see: endless bodies, and web pages that reach for the loopback."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import ProblemError, from_http
from api.settings import Settings, is_loopback

__all__ = ["Guard"]

SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Checks of a request's head, and the limit of JSON bodies.

    Without authentication the service trusts whoever reaches it, which is why it listens on the loopback. A web page in
    the user's browser reaches that as well: by a name that resolves to 127.0.0.1 (Host), or by a plain form (Origin).

    Parameters
    ----------
    app : ASGI application
    settings : Settings
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        streamed = scope["method"] == "POST" and scope["path"] == "/v1/traces"
        limit = self.settings.max_trace_bytes if streamed else self.settings.max_json_bytes
        try:
            self._check_origin(scope["method"], headers)
            declared = headers.get("content-length", "")
            if declared.isdecimal() and int(declared[:20]) > limit:
                raise ProblemError("too-large", f"{declared[:20]} bytes are more than {limit}.")
        except ProblemError as error:
            await from_http(error)(scope, receive, send)
            return
        received = 0

        async def receive_some() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise ProblemError(
                    "too-large", f"The body is larger than {limit} bytes.", headers={"Connection": "close"}
                )
            return message

        await self.app(scope, receive_some, send)

    def _check_origin(self, method: str, headers: dict[str, str]) -> None:
        if self.settings.allow_remote:
            return
        host = _host(f"//{headers.get('host', '')}")
        if host is not None and not is_loopback(host):
            raise ProblemError("misdirected", f"The service is not called {host[:100]!r}.")
        origin = headers.get("origin")
        if method not in SAFE and origin is not None:
            source = _host(origin)
            if source is None or not is_loopback(source):
                raise ProblemError("forbidden-origin", f"Requests from {origin[:100]!r} are refused.")


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return ""
