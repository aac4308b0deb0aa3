"""Traces, the service in this process, and the service as a process of its own."""

from __future__ import annotations

import functools
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from fastapi.testclient import TestClient

from api.settings.settings import Settings
from api.store.database import Database
from tests.api.postgres import Postgres, missing
from tests.builders.service import local_client, npz_bytes, upload

Upload = Callable[..., str]


@pytest.fixture(scope="session", autouse=True)
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Copy the embedded database that migrations make, where a test of this process makes a new one."""
    migrate = Database.upgrade

    @functools.cache
    def empty() -> bytes:
        path = tmp_path_factory.mktemp("migrated") / "service.db"
        made = Database(f"sqlite:///{path}")
        migrate(made)
        made.close()
        return path.read_bytes()

    def upgrade(self: Database, revision: str = "head") -> None:
        kind, path = self.url.partition(":///")[::2]
        if kind == "sqlite" and revision == "head" and Path(path).parent.is_dir() and not Path(path).exists():
            Path(path).write_bytes(empty())
        migrate(self, revision)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "upgrade", upgrade)
        yield


@pytest.fixture(scope="session")
def trace_bytes() -> bytes:
    """Return a small valid trace: 2000 tokens, layers 1-6, 32 experts, top-2, with seq_id."""
    return npz_bytes()


@pytest.fixture(scope="session")
def make_trace_bytes() -> Callable[..., bytes]:
    """Return `npz_bytes`, for other shapes and columns."""
    return npz_bytes


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Run the service in this process, with small limits; plans run in worker processes."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("service"),
        max_workers=1,
        max_json_bytes=100_000,
        max_trace_bytes=2_000_000,
        max_time_limit_s=60,
        max_wait_s=240,
        max_job_bytes=1 << 30,
        threads_per_plan=1,
    )
    with local_client(settings, raising=False) as client:
        yield client


@pytest.fixture(scope="session")
def trace_id(client: TestClient, trace_bytes: bytes) -> str:
    """Upload the small valid trace and return its id."""
    return upload(client, trace_bytes, name="tiny.npz")


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder of its own: plans without a name are written where a command runs."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@dataclass
class Server:
    """The service as a process."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    log: Path
    http: httpx2.Client

    @classmethod
    def start(cls, data_dir: Path, **settings: Any) -> Server:
        """Start it on a free port and wait until it listens."""
        log = data_dir.parent / f"{data_dir.name}-{time.monotonic_ns()}.log"
        given = {"data_dir": data_dir, "port": 0, "max_workers": 1, "threads_per_plan": 1, **settings}
        environment = os.environ | {f"MOE_PLACEMENT_{name.upper()}": str(value) for name, value in given.items()}
        with log.open("wb") as file:
            process = subprocess.Popen(
                # As a command has it: a module that runs as the program would be imported again by every worker.
                [sys.executable, "-c", "from api.service.server import serve; serve()"],
                cwd=Path(__file__).parents[2],
                env=environment,
                stderr=file,
                stdout=file,
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            for line in log.read_text().splitlines():
                if '"service.listening"' in line:
                    port = json.loads(line)["address"][1]
                    return cls(process, data_dir, log, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60))
            time.sleep(0.05)
        process.kill()
        raise AssertionError(f"the service did not start:\n{log.read_text()}")

    def workers(self) -> list[psutil.Process]:
        """Return the processes that work for it: children of the one that it has them copied from."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if child.ppid() != self.process.pid]

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.http.close()
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        """Ask it to stop, and return its exit code."""
        self.process.terminate()
        code = self.process.wait(60)
        self.http.close()
        return code

    def until(self, path: str, done: Callable[[dict[str, Any]], bool], seconds: float = 120) -> dict[str, Any]:
        """Poll a resource until `done` says so."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            content: dict[str, Any] = self.http.get(path).raise_for_status().json()
            if done(content):
                return content
            time.sleep(0.1)
        raise AssertionError(f"{path} is still {content['status']}:\n{self.log.read_text()[-4000:]}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL server of our own."""
    if reason := missing():
        pytest.skip(reason)
    # The path of a socket must be short, and its owner must reach it: no folder of pytest's does.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    (folder / "server").mkdir()
    folder.chmod(0o711)
    server = Postgres.start(folder / "server")
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'service.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database(f"test_{secrets.token_hex(8)}")


@pytest.fixture(scope="session")
def server_type() -> type[Server]:
    """Return `Server`, for fixtures of other scopes."""
    return Server


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Return `Server.start`; what is still running at the end of the test is ended."""
    started: list[Server] = []

    def start(data_dir: Path, **settings: Any) -> Server:
        started.append(Server.start(data_dir, **settings))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.kill()
