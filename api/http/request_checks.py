"""Checks before any route: sizes of bodies, and requests of web pages that must not reach the service."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.gate import guarded
from api.http.problems import ProblemError, from_http
from api.settings.addresses import is_loopback
from api.settings.settings import Settings

__all__ = ["RequestChecks"]

IDLE_S = 60.0  # longest wait for the next bytes of a body
SAFE = ("GET", "HEAD", "OPTIONS")
OTHER_SITES = ("cross-site", "same-site")  # Sec-Fetch-Site, which browsers set and pages can't
# What a browser may do with an answer: nothing, but where a route says otherwise.
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"private, no-cache"),
)


class RequestChecks:
    """Middleware that checks Host, Origin and the size of bodies, and adds the security headers of browsers.

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
        part = scope["method"] == "PATCH" and scope["path"].startswith("/v1/uploads/")
        streamed = part or (scope["method"] == "POST" and scope["path"] == "/v1/traces")
        limit = self.settings.max_trace_bytes if streamed else self.settings.max_json_bytes

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", ())}
                safe = [(name, value) for name, value in HEADERS if name not in given]
                message["headers"] = [*message.get("headers", ()), *safe]
            await send(message)

        try:
            self._check_origin(scope["method"], scope["path"], headers)
            declared = headers.get("content-length", "")
            if declared.isdecimal() and int(declared[:20]) > limit:
                raise ProblemError("too-large", f"{declared[:20]} bytes are more than {limit}.")
        except ProblemError as error:
            await from_http(error)(scope, receive, send_safely)
            return
        received, whole = 0, False

        async def receive_some() -> Message:
            nonlocal received, whole
            if whole:  # what comes now is that the client has gone
                return await receive()
            try:
                async with asyncio.timeout(IDLE_S):
                    message = await receive()
            except TimeoutError:
                detail = f"Nothing of the body has arrived for {IDLE_S:g} s."
                raise ProblemError("request-timeout", detail, headers={"Connection": "close"}) from None
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > limit:
                raise ProblemError(
                    "too-large", f"The body is larger than {limit} bytes.", headers={"Connection": "close"}
                )
            return message

        await self.app(scope, receive_some, send_safely)

    def _check_origin(self, method: str, path: str, headers: dict[str, str]) -> None:
        """Refuse other names than the service's, and web pages of other sites.

        Without authentication they may not even read, or load what a browser would not let them read: another port of
        the loopback is another site. With it, reading takes a key, which no page of another site has.
        """
        settings = self.settings
        name = headers.get("host", "")
        host = _host(f"//{name}")
        known = host is None or host in settings.allowed_hosts
        if settings.auth == "off":
            known = known or is_loopback(host or "")
        elif not settings.allowed_hosts:
            known = True
        if not known:
            raise ProblemError("misdirected", f"The service is not called {(host or '')[:100]!r}.")
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in settings.allowed_origins:
            return
        changes = method not in SAFE or (settings.auth == "off" and guarded(path))
        if changes and origin is not None and origin.partition("://")[2] != name:
            raise ProblemError("forbidden-origin", f"Requests from {origin[:100]!r} are refused.")
        if changes and site in OTHER_SITES:
            raise ProblemError("forbidden-origin", "Requests from pages of other sites are refused.")


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return ""
