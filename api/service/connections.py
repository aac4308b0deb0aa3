"""Connections that say nothing, or a byte a second: they get no more of the service than a socket, and not for long."""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol
else:
    Protocol = AutoHTTPProtocol

__all__ = ["Connection", "allow_connections"]

HEAD_S = 15.0  # for the head of a request, from the first moment of the connection, or its first byte
MOST_FILES = 65_536


class Connection(Protocol):
    """A connection of the server, which is closed unless a request's head is whole in time.

    The server itself knows a limit only for the time between two requests, which ends with the next one's first byte.
    """

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the server's own
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._limit = self.loop.call_later(HEAD_S, transport.close)

    def data_received(self, data: bytes) -> None:
        """Go on waiting while there is no whole head, and no longer once there is one."""
        super().data_received(data)
        cycle: Any = self.cycle  # None before the first request, whatever the server declares
        if cycle is not None and not cycle.response_complete:
            self._stop_waiting()
        elif self._limit is None:
            self._limit = self.loop.call_later(HEAD_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Leave the time until the next request begins to the server."""
        self._stop_waiting()
        super().on_response_complete()

    def _stop_waiting(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None


def allow_connections() -> None:
    """Let this process have as many open files as the system allows it, within reason: a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
