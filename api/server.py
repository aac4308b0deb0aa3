"""The service as a process."""

from __future__ import annotations

import socket
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvicorn
from pydantic import ValidationError

from api.app import create_app
from api.services import Services
from api.settings import Settings
from api.telemetry import configure_logging
from traces import InputError, Violations

__all__ = ["serve"]

log = structlog.get_logger(__name__)


class _Server(uvicorn.Server):
    """Tells the service as soon as it is asked to stop, so that long waits end and the last requests are answered."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._services.draining.set()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            for server in self.servers:
                for listening in server.sockets:
                    log.info("service.listening", address=list(listening.getsockname()[:2]))


def serve(host: str | None = None, port: int | None = None, data_dir: Path | None = None) -> None:
    """Run the service until SIGTERM or Ctrl-C. Running plans are queued again and taken up at the next start.

    Parameters
    ----------
    host, port, data_dir : optional
        Instead of those of the settings.

    Raises
    ------
    InputError
        If a setting is out of range, other machines could reach the service and that was not allowed, or the data
        folder can't be used.
    """
    given: dict[str, Any] = {"host": host, "port": port, "data_dir": data_dir}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise _bad_settings(error) from None
    configure_logging(settings.log_level)
    app = create_app(settings)
    app.state.services.open()  # before the server starts, so that what is wrong is told in a sentence
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # telemetry.RequestLog writes it, with the request id
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_s)),
    )
    _Server(config, app.state.services).run()


def _bad_settings(error: ValidationError) -> InputError:
    found = Violations()
    for item in error.errors():
        name = ".".join(map(str, item["loc"])) or "host"
        detail = str(item["msg"]).removeprefix("Value error, ")
        found.add("setting", f"/{name}", detail, f"Set MOE_PLACEMENT_{name.upper()}, or the option of the command.")
    return InputError(tuple(found.found))


if __name__ == "__main__":
    serve()
