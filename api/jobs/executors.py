"""Where work runs: the processes of this machine, or a Dask cluster. Both are executors of ``concurrent.futures``."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import urlsplit

from traces import InputError

__all__ = ["LOCAL", "Cluster", "ExecutorLostError", "check_installed", "executor_factory", "parse_executor"]

LOCAL = "processes"
SCHEMES = {"dask": "tcp", "dask+tls": "tls"}
Result = TypeVar("Result")
FORMS = "processes, dask://HOST:PORT or dask+tls://HOST:PORT"


class ExecutorLostError(BrokenExecutor):
    """The executor went away, by no fault of what it ran."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Address of a Dask scheduler.

    Attributes
    ----------
    transport : str
        ``tcp``, or ``tls`` with the certificates of Dask's own configuration.
    host : str
    port : int
    """

    transport: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """Address as Dask writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}://{host}:{self.port}"


def parse_executor(text: str) -> Cluster | None:
    """Read ``processes`` (None) or ``dask://HOST:PORT``.

    Raises
    ------
    ValueError
        With a sentence that says what is wrong.
    """
    if text == LOCAL:
        return None
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = None
    more = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme not in SCHEMES or not parts.hostname or not port or more:
        raise ValueError(f"{text!r} is no executor. Give {FORMS}.")
    return Cluster(transport=SCHEMES[parts.scheme], host=parts.hostname, port=port)


def executor_factory(text: str, pointer: str = "/executor") -> Callable[[], Executor]:
    """Return what makes executors of the kind that is asked for.

    Parameters
    ----------
    text : str
        See `parse_executor`. ``processes`` is one process per core.
    pointer : str
        Place to name in errors.

    Raises
    ------
    InputError
        If the text is wrong, or the package for it is missing. The factory raises it if the scheduler can't be reached.
    """
    try:
        cluster = parse_executor(text)
    except ValueError as error:
        raise InputError.of("executor", pointer, str(error)) from None
    if cluster is None:
        return _Processes
    check_installed(pointer)

    def connect() -> Executor:
        from api.jobs.cluster import ClusterExecutor

        try:
            return ClusterExecutor(cluster.address)
        except OSError as error:
            detail = f"There is no Dask scheduler to reach at {cluster.address}."
            remedy = "Start one (`dask scheduler`), or check the address; client and scheduler need the same version."
            raise InputError.of("scheduler_unreachable", pointer, detail, remedy) from error

    return connect


class _Processes(Executor):
    """A process per core of this machine, which end at once when nobody waits for them: after Ctrl-C, say."""

    def __init__(self) -> None:
        from api.jobs.processes import process_pool

        self._max_workers = len(os.sched_getaffinity(0))
        self._pool = process_pool(self._max_workers, 0, None)

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """Call a function in a process."""
        return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes: when they are done, or, without `wait`, at once."""
        from api.jobs.processes import kill

        if wait:
            self._pool.shutdown(cancel_futures=cancel_futures)
        else:
            kill(self._pool)


def check_installed(pointer: str = "/executor") -> None:
    """Raise InputError if Dask is not installed."""
    if find_spec("distributed") is None:
        detail = "A Dask cluster needs the package distributed."
        raise InputError.of("dask_missing", pointer, detail, 'Install it: pip install "moe-placement[dask]".')
