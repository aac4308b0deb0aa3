"""Process pools: spawned, at low priority, never left behind by a server that dies."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any, TypeVar

__all__ = ["Helpers", "close", "kill", "process_pool"]

Result = TypeVar("Result")


def process_pool(
    workers: int, niceness: int, log_level: str | None, memory_bytes: int | None = None
) -> ProcessPoolExecutor:
    """Return a pool of spawned processes; they start when they are needed.

    Parameters
    ----------
    workers : int
    niceness : int
        Added to this process's.
    log_level : str or None
        Of the service's log, to which they write; None leaves logging as Python has it.
    memory_bytes : int, optional
        What each process may allocate; more is refused, which ends its job but nothing else.
    """
    context = multiprocessing.get_context("spawn")  # a forked copy of a server with threads may hang
    return ProcessPoolExecutor(workers, context, _enter, (niceness, log_level, memory_bytes))


def close(executor: Executor, timeout_s: float) -> None:
    """End a pool whose processes are idle or about to be; those that are not after `timeout_s` are killed."""
    processes = list((getattr(executor, "_processes", None) or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    deadline = time.monotonic() + timeout_s
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()


def kill(executor: Executor) -> None:
    """End the processes of a pool at once; what runs in them is lost. Executors of other kinds are only shut down."""
    for process in list((getattr(executor, "_processes", None) or {}).values()):
        process.kill()
    executor.shutdown(wait=False, cancel_futures=True)


def _enter(niceness: int, log_level: str | None, memory_bytes: int | None) -> None:
    os.nice(niceness)
    if memory_bytes is not None:
        # Data, not address space: libraries reserve gigabytes of addresses that they never touch.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server decides
    if log_level is not None:
        from api.telemetry.logs import configure_logging  # of the extra `service`

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

    def start(self, function: Callable[[], object]) -> None:
        """Call a function ahead of any request, to load what tasks will need."""
        self._executor.submit(function)

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in a helper; BrokenExecutor if it ended the helper, twice."""
        executor = self._executor
        try:
            return await asyncio.wrap_future(executor.submit(function, *arguments))
        except BrokenExecutor:
            # The helper may have died of another task, so this one gets a second chance.
            return await asyncio.wrap_future(self._renewed(executor).submit(function, *arguments))

    def close(self, timeout_s: float) -> None:
        """End the helpers within about `timeout_s`."""
        close(self._executor, timeout_s)

    def _renewed(self, broken: Executor) -> Executor:
        with self._lock:
            if self._executor is broken:
                kill(broken)
                self._executor = self._make()
            return self._executor
