"""A Dask cluster on the loopback, as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["DaskCluster", "missing"]

ROOT = Path(__file__).parents[2]


def missing() -> str | None:
    """Return why there can be no cluster, if so."""
    return None if find_spec("distributed") else "Dask is not installed: pip install distributed"


@dataclass
class DaskCluster:
    """A scheduler and workers with one thread each; their folder keeps their logs."""

    folder: Path
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    client: Any = None

    @classmethod
    def start(cls, folder: Path, workers: int) -> DaskCluster:
        """Start a scheduler on a free port, and workers; wait until all are there."""
        cluster = cls(folder)
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show", "--no-jupyter"]
        cluster.scheduler = cluster._run("scheduler", [*options, "--scheduler-file", str(cluster._file)])
        for _ in range(workers):
            cluster.add_worker()
        from distributed import Client

        connect: Any = Client
        deadline = time.monotonic() + 60
        while not cluster._file.exists():
            assert time.monotonic() < deadline, cluster.log()
            time.sleep(0.05)
        cluster.client = connect(scheduler_file=str(cluster._file), set_as_default=False, timeout=30)
        if workers:
            cluster.client.wait_for_workers(workers, timeout=60)
        return cluster

    @property
    def url(self) -> str:
        """Return `dask://127.0.0.1:PORT`."""
        address: str = json.loads(self._file.read_text())["address"]
        return address.replace("tcp://", "dask://")

    def add_worker(self, *more: str) -> None:
        """Start one more worker, with further options."""
        # Without a nanny nobody starts a worker again that a test has killed.
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self.folder), *more]
        self.workers.append(self._run("worker", ["--scheduler-file", str(self._file), *options]))

    def replace_scheduler(self) -> None:
        """End the scheduler, and start another one at the same address. It has no workers."""
        assert self.scheduler is not None
        port = self.url.rpartition(":")[2]
        self.scheduler.kill()
        self.scheduler.wait(30)
        options = ["--host", "127.0.0.1", "--port", port, "--no-dashboard", "--no-show", "--no-jupyter"]
        self.scheduler = self._run("scheduler", options)

    def busy(self, name: str) -> list[int]:
        """Return the process ids of the workers that have a task whose key begins with `name`."""
        working = [worker for worker, keys in self.client.processing().items() if any(name in str(k) for k in keys)]
        pids: dict[str, int] = self.client.run(os.getpid)
        return [pids[worker] for worker in working if worker in pids]

    def kill(self, pid: int) -> None:
        """Kill a worker, as the system does when memory runs out."""
        worker = next(worker for worker in self.workers if worker.pid == pid)
        worker.kill()
        worker.wait(30)

    def stop(self) -> None:
        """End everything."""
        if self.client is not None:
            self.client.close(timeout=2)
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            process.kill()
            process.wait(30)

    def log(self) -> str:
        """Return what the processes have said."""
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))

    @property
    def _file(self) -> Path:
        return self.folder / "scheduler.json"

    def _run(self, role: str, options: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{role}-{time.monotonic_ns()}.log").open("wb") as log:
            command = [sys.executable, "-m", "dask", role, *options]
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
