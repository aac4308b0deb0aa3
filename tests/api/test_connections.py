"""Plain sockets: a thousand that say nothing, heads and bodies that come byte by byte. Others are served meanwhile."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread

import httpx2
import pytest
import uvicorn

from api.http import request_checks, strict
from api.service import connections
from api.service.app import create_app
from api.service.server import configured
from api.settings.settings import Settings

LIMIT_S = 1.5


@dataclass
class Listening:
    """A server in this process whose limits are short."""

    port: int
    key: str
    opened: list[socket.socket] = field(default_factory=list)

    def connect(self) -> socket.socket:
        """Open a connection."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        self.opened.append(made)
        return made

    def begin(self, method: str, path: str, *fields: str, key: bool = True) -> socket.socket:
        """Send the head of a request whose body is to have 1,000 bytes."""
        known = [f"Authorization: Bearer {self.key}"] if key else []
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Length: 1000", *known, *fields, "", ""]
        made = self.connect()
        made.sendall("\r\n".join(lines).encode())
        return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """Serve on a free port until the end of the tests."""
    patch = pytest.MonkeyPatch()
    patch.setattr(connections, "HEAD_S", LIMIT_S)
    patch.setattr(strict, "BODY_S", LIMIT_S)
    patch.setattr(request_checks, "IDLE_S", LIMIT_S)
    settings = Settings(data_dir=tmp_path_factory.mktemp("sockets"), auth="required", shutdown_s=0)
    connections.allow_connections()
    app = create_app(settings)
    app.state.service.open()
    key, _ = app.state.services.keys.create("us", ["write"])
    listening = socket.create_server(("127.0.0.1", 0), backlog=2000)
    runner = uvicorn.Server(configured(app, settings))
    thread = Thread(target=lambda: asyncio.run(runner.serve([listening])))
    thread.start()
    made = Listening(listening.getsockname()[1], key)
    for _ in range(300):
        with suppress(httpx2.HTTPError):
            httpx2.get(f"http://127.0.0.1:{made.port}/healthz")
            break
        time.sleep(0.1)
    yield made
    for one in made.opened:
        one.close()
    runner.should_exit = True
    thread.join(30)
    patch.undo()


def status_of(connection: socket.socket) -> str:
    """Return the status that comes, empty if the connection ends without one."""
    return connection.recv(4096).decode("latin-1").partition(" ")[2][:3]


def test_idle_connections_end(server: Listening) -> None:
    """A thousand connections that say nothing keep nobody waiting, and are closed."""
    silent = [server.connect() for _ in range(1000)]
    begin = time.monotonic()
    assert httpx2.get(f"http://127.0.0.1:{server.port}/healthz", timeout=30).status_code == 200
    assert time.monotonic() - begin < 5
    assert all(status_of(one) == "" for one in silent), "closed without an answer"


def test_slow_heads_end(server: Listening) -> None:
    """A head that comes byte by byte is cut off, on a connection's second request as well."""
    fresh, used = server.connect(), server.connect()
    used.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert status_of(used) == "200"
    ended: set[socket.socket] = set()
    deadline = time.monotonic() + 20
    while len(ended) < 2 and time.monotonic() < deadline:
        for one in {fresh, used} - ended:
            try:
                one.sendall(b"G")
            except OSError:
                ended.add(one)
        time.sleep(0.2)
    assert ended == {fresh, used}


def test_bodies_of_strangers_are_not_waited_for(server: Listening) -> None:
    """Without a key the answer comes before the body, on every route that takes one."""
    for method, path in (("POST", "/v1/plans"), ("POST", "/v1/traces"), ("PATCH", "/v1/uploads/x"), ("PUT", "/v1/x")):
        begin = time.monotonic()
        assert status_of(server.begin(method, path, "Content-Type: application/json", key=False)) == "401"
        assert time.monotonic() - begin < LIMIT_S


def test_slow_bodies_end(server: Listening) -> None:
    """With a key, JSON has so long in all, and a file so long for the next bytes."""
    bodies = [server.begin("POST", "/v1/plans", "Content-Type: application/json"), server.begin("POST", "/v1/traces")]
    bodies[0].sendall(b"{")
    bodies[1].sendall(b"PK")
    assert [status_of(one) for one in bodies] == ["408", "408"]
