"""The service that attacks are measured on, its tenants, and an identity provider that may hang."""

from __future__ import annotations

import json
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

import httpx2

__all__ = ["HangingProvider", "Target"]

AUDIENCE = "moe-placement"
CALL = (sys.executable, "-c", "from api.cli import main; main()")  # as the console script of any version


class HangingProvider:
    """An identity provider on this machine that publishes a key, until it is told to hang."""

    def __init__(self) -> None:
        import jwt
        from cryptography.hazmat.primitives.asymmetric import rsa

        self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key()))
        body = json.dumps({"keys": [public | {"kid": "1", "use": "sig"}]}).encode()
        self._hanging, self._over = Event(), Event()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if provider._hanging.is_set():
                    provider._over.wait(600)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()

    def hang(self) -> None:
        """Answer nobody from now on."""
        self._hanging.set()

    def token(self, claims: Mapping[str, Any] = {}, **headers: Any) -> str:
        """Return a token that the provider has signed."""
        import jwt

        now = int(time.time())
        content = {"iss": self.address, "aud": AUDIENCE, "sub": "eve", "iat": now, "exp": now + 600}
        return jwt.encode(content | dict(claims), self.private, "RS256", headers={"kid": "1"} | headers)


@dataclass
class Target:
    """A server of our own in a temporary folder, with a key for an honest tenant and one for an attacker."""

    folder: Path
    process: subprocess.Popen[bytes]
    url: str
    provider: HangingProvider
    honest: str
    attacker: str
    sockets: list[socket.socket] = field(default_factory=list)

    @classmethod
    def start(cls, folder: Path, root: Path, provider: HangingProvider, settings: Mapping[str, Any]) -> Target:
        """Start the service of a checkout and wait until it listens."""
        data = folder / "data"
        data.mkdir()
        given = {
            "DATA_DIR": data,
            "PORT": 0,
            "AUTH": "required",
            "MAX_WORKERS": 2,
            "THREADS_PER_PLAN": 1,
            "OIDC_ISSUER": provider.address,
            "OIDC_JWKS_URL": f"{provider.address}/keys",
            **settings,
        }
        environment = os.environ | {f"MOE_PLACEMENT_{name}": str(value) for name, value in given.items()}
        environment["PYTHONPATH"] = str(root)

        def run(*command: str) -> str:
            call = [*CALL, *command, "--data-dir", str(data)]
            return subprocess.run(call, cwd=root, env=environment, check=True, capture_output=True, text=True).stdout

        keys = [json.loads(run("key", "create", "--tenant", who, "--scope", "write", "--json"))["key"] for who in "ab"]
        log = folder / "log"
        with log.open("wb") as file:
            process = subprocess.Popen([*CALL, "serve"], cwd=root, env=environment, stderr=file, stdout=file)
        begin = time.monotonic()
        while not (found := [line for line in log.read_text().splitlines() if '"service.listening"' in line]):
            if time.monotonic() - begin > 60 or process.poll() is not None:
                process.kill()
                raise SystemExit(f"The service did not start:\n{log.read_text()}")
            time.sleep(0.05)
        url = f"http://127.0.0.1:{json.loads(found[0])['address'][1]}"
        return cls(folder, process, url, provider, *keys)

    def client(self, key: str, timeout: float) -> httpx2.Client:
        """Return a client with a key."""
        return httpx2.Client(base_url=self.url, timeout=timeout, headers={"Authorization": f"Bearer {key}"})

    def connect(self) -> socket.socket:
        """Return a plain connection, which is closed at the end of the attack."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if len(self.sockets) + 200 > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, soft + 4096), hard))
        host, _, port = self.url.removeprefix("http://").partition(":")
        made = socket.create_connection((host, int(port)), timeout=10)
        self.sockets.append(made)
        return made

    def close_sockets(self) -> None:
        """Close the plain connections."""
        for made in self.sockets:
            with suppress(OSError):
                made.close()
        self.sockets.clear()

    def memory_mb(self) -> float:
        """Return the resident memory of the server process, not of its workers."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def audit_rows(self) -> int:
        """Return the number of entries of the audit log."""
        database = sqlite3.connect(f"file:{self.folder / 'data' / 'service.db'}?mode=ro", uri=True)
        with database:
            count: int = database.execute("SELECT count(*) FROM audit_log").fetchone()[0]
        database.close()
        return count

    def faults(self) -> int:
        """Return the number of answers with status 500, after the log."""
        return sum('"status": 500' in line for line in (self.folder / "log").read_text().splitlines())

    def stop(self) -> float:
        """Ask the server to stop; return how long that took."""
        begin = time.monotonic()
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(120)
        return time.monotonic() - begin

    def kill(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
