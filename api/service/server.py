"""The service as a process."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

from api.http.bodies import keep_little_memory
from api.service.app import create_app
from api.service.connections import Connection, allow_connections
from api.service.lifecycle import Service
from api.settings.settings import Settings, read_settings, unknown_variables
from api.telemetry.logs import configure_logging
from traces import InputError

__all__ = ["configured", "serve"]

log = structlog.get_logger(__name__)


class _Server(uvicorn.Server):
    """Tells the service as soon as it is asked to stop: long waits and plans end beside the last requests."""

    def __init__(self, config: uvicorn.Config, service: Service, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = service
        self._listening = listening

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.begin_stop()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._listening()


def serve(
    host: str | None = None,
    port: int | None = None,
    data_dir: Path | None = None,
    *,
    on_listening: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C. Running plans are queued again and taken up at the next start.

    Parameters
    ----------
    host, port, data_dir : optional
        Instead of those of the settings.
    on_listening : callable, optional
        Called once requests are answered, with ``pid``, ``host``, ``port`` and ``data_dir``, as they turned out.

    Raises
    ------
    InputError
        If a setting is out of range, other machines could reach the service and that was not allowed, or the address or
        the data folder can't be used.
    """
    settings = read_settings(host=host, port=port, data_dir=data_dir)
    configure_logging(settings.log_level)
    for variable in unknown_variables():
        log.warning("setting.unknown", variable=variable)
    # Both before the server starts, so that what is wrong is told in a sentence, and no plan is begun in vain.
    bound = _bind(settings.host, settings.port)
    with bound:
        app = create_app(settings)
        service: Service = app.state.service
        service.end = lambda: os.kill(os.getpid(), signal.SIGTERM)
        service.open()
        address = bound.getsockname()[:2]

        def listening() -> None:
            log.info("service.listening", address=list(address))
            if on_listening is not None:
                kept = str(settings.data_dir.absolute())
                on_listening({"pid": os.getpid(), "host": address[0], "port": address[1], "data_dir": kept})

        allow_connections()
        keep_little_memory()
        config = configured(app, settings)
        # What is loaded stays: to go through it again and again would hold up requests for some 90 ms each time.
        gc.collect()
        gc.freeze()
        # The server raises a signal again once it has stopped. Python's own way to end by SIGTERM leaves out what is to
        # be done at exit: semaphores and folders of process pools would stay.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        _Server(config, service, listening).run([bound])


def configured(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return the server's own settings."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,  # http.request_log writes it, with the request id
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_s)),
    )


def _bind(host: str, port: int) -> socket.socket:
    """Take the address; nobody is answered before the server starts."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        if host == "localhost":
            family = socket.AF_INET  # every client tries it; not every machine has the other
        bound = socket.create_server((host, port), family=family)
    except OSError as error:
        detail = f"Can't listen on port {port} of {host}: {error.strerror}."
        remedy = "Stop what uses it, or give another host or port (0 takes a free one)."
        raise InputError.of("address", "/port", detail, remedy) from error
    # The event loop does so only where a socket names its protocol. Else the body of an answer, sent after the head,
    # waits some 40 ms for the client's acknowledgement.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


if __name__ == "__main__":
    serve()
