"""Refusals in the middle of a body: a connection that closes while the client still sends loses the answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["DrainBody"]

DRAIN_S = 3.0  # long enough for a client on a slow line to read the answer


class DrainBody:
    """Middleware that, after a body was refused half-way, reads on for a moment before the connection closes.

    Parameters
    ----------
    app : ASGI application
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        unread = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        # A client that waits to be asked for its body sends none after an answer.
        waiting = b"expect" in headers

        async def receive_some() -> Message:
            nonlocal unread, waiting
            waiting = False
            message = await receive()
            unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def drain() -> None:
            while unread:
                await receive_some()

        async def send_some(message: Message) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not last or not unread or waiting:
                await send(message)
                return
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                await asyncio.wait_for(drain(), DRAIN_S)
            await send({"type": "http.response.body", "body": b""})

        await self.app(scope, receive_some, send_some)
