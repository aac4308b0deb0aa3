"""Process pools: spawned, at low priority, never left behind by a server that dies."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any, TypeVar

from api.telemetry import configure_logging

__all__ = ["Helpers", "kill", "process_pool"]

Result = TypeVar("Result")


def process_pool(workers: int, niceness: int, log_level: str) -> ProcessPoolExecutor:
    """Return a pool of spawned processes; they start when they are needed.

    Parameters
    ----------
    workers : int
    niceness : int
        Added to this process's.
    log_level : str
    """
    context = multiprocessing.get_context("spawn")  # a forked copy of a server with threads may hang
    return ProcessPoolExecutor(workers, context, _enter, (niceness, log_level))


def kill(executor: Executor) -> None:
    """End the processes of a pool at once; what runs in them is lost. Executors of other kinds are only shut down."""
    for process in list((getattr(executor, "_processes", None) or {}).values()):
        process.kill()
    executor.shutdown(wait=False, cancel_futures=True)


def _enter(niceness: int, log_level: str) -> None:
    os.nice(niceness)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server decides
    configure_logging(log_level)
    threading.Thread(target=_die_with_parent, name="parent-watch", daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


class Helpers:
    """Processes for short tasks of requests, so that neither memory nor the interpreter lock of the server suffers.

    Parameters
    ----------
    make : callable
        Returns a new executor.
    """

    def __init__(self, make: Callable[[], Executor]) -> None:
        self._make = make
        self._executor = make()
        self._lock = threading.Lock()

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in a helper; BrokenExecutor if it ended the helper, twice."""
        executor = self._executor
        try:
            return await asyncio.wrap_future(executor.submit(function, *arguments))
        except BrokenExecutor:
            # The helper may have died of another task, so this one gets a second chance.
            return await asyncio.wrap_future(self._renewed(executor).submit(function, *arguments))

    def close(self) -> None:
        """End the helpers."""
        kill(self._executor)

    def _renewed(self, broken: Executor) -> Executor:
        with self._lock:
            if self._executor is broken:
                kill(broken)
                self._executor = self._make()
            return self._executor
