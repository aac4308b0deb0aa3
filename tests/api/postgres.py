"""A PostgreSQL server of our own for tests, on a socket in a temporary folder: nothing of the machine's is touched."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Postgres", "missing"]


def _programs() -> Path | None:
    """Return the folder of the server's programs, the latest if there are several."""
    folders = [program.parent for program in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)]
    if found := shutil.which("initdb"):
        folders.append(Path(found).parent)
    needed = ("initdb", "postgres", "pg_isready", "createdb")
    return next((folder for folder in folders if all((folder / name).exists() for name in needed)), None)


def missing() -> str | None:
    """Return why no server can be started here, as a sentence; None if one can."""
    if _programs() is None:
        return "PostgreSQL is not installed (Debian: postgresql)."
    if importlib.util.find_spec("psycopg") is None:
        return "The driver psycopg is not installed (extra: postgres)."
    return None


@dataclass
class Postgres:
    """A running server.

    Attributes
    ----------
    folder : Path
        Its data and its socket.
    process : Popen
    """

    folder: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, folder: Path) -> Postgres:
        """Make a database cluster in a short, empty folder and serve it on a socket there."""
        programs = _programs()
        assert programs is not None, "ask `missing` first"
        user = None
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(folder, "postgres")
            folder.chmod(0o700)
            user = "postgres"
        data = folder / "data"
        make = [programs / "initdb", f"--pgdata={data}", "--username=test", "--auth=trust", "--no-sync"]
        subprocess.run([*map(str, make)], check=True, capture_output=True, cwd="/", user=user, group=user)
        options = {"listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off"}
        serve = [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in options.items())]
        log = (folder.parent / "postgres.log").open("wb")
        process = subprocess.Popen([*map(str, serve)], cwd="/", stderr=log, user=user, group=user)
        server = cls(folder, process)
        deadline = time.monotonic() + 30
        while subprocess.run([programs / "pg_isready", "-q", "-h", folder], check=False).returncode:
            if time.monotonic() > deadline or process.poll() is not None:
                server.stop()
                raise AssertionError((folder.parent / "postgres.log").read_text())
            time.sleep(0.05)
        return server

    def database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        programs = _programs()
        assert programs is not None
        subprocess.run([programs / "createdb", "-h", self.folder, "-U", "test", name], check=True)
        return f"postgresql://test@/{name}?host={self.folder}"

    def stop(self) -> None:
        """End the server at once."""
        self.process.kill()
        self.process.wait(30)
