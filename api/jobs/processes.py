"""Process pools: at low priority, never left behind by a server that dies."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path

__all__ = ["busy_s", "kill", "process_pool"]


def process_pool(
    workers: int,
    niceness: int,
    log_level: str | None,
    memory_bytes: int | None = None,
    preload: Sequence[str] = (),
) -> ProcessPoolExecutor:
    """Return a pool of processes; they start when they are needed.

    They are copies of one process that has loaded modules and does nothing else (`multiprocessing`'s fork server): it
    takes seconds to load them, and the copies share the memory of what is loaded. A copy of this process may hang, as
    it has threads.

    Parameters
    ----------
    workers : int
    niceness : int
        Added to this process's.
    log_level : str or None
        Of the service's log, to which they write; None leaves logging as Python has it.
    memory_bytes : int, optional
        What each process may allocate; more is refused, which ends its job but nothing else.
    preload : sequence of str
        Modules to load before the first copy is made; those that are not installed are passed over. Only what the first
        pool of this process names counts.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return ProcessPoolExecutor(workers, context, _enter, (niceness, log_level, memory_bytes))


def kill(executor: Executor) -> None:
    """End the processes of a pool at once; what runs in them is lost. Executors of other kinds are only shut down."""
    for process in list((getattr(executor, "_processes", None) or {}).values()):
        process.kill()
    executor.shutdown(wait=False, cancel_futures=True)


def busy_s(executor: Executor) -> float | None:
    """Return the processor time that the processes of a pool have used so far; None where it can't be told."""
    pids = list(getattr(executor, "_processes", None) or {})
    if not pids:
        return None
    try:
        # After the name, which may hold anything: fields 14 and 15 of proc(5).
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
        return sum(int(field) for stat in stats for field in stat[11:13]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None


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
