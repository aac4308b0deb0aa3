"""Where work runs: the processes of this machine, or a Dask cluster. Both are executors of ``concurrent.futures``."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from importlib.util import find_spec
from typing import Any, TypeVar

from api.settings.addresses import parse_executor
from traces import InputError

__all__ = ["check_installed", "executor_factory"]

Result = TypeVar("Result")


def executor_factory(text: str, pointer: str = "/executor") -> Callable[[], Executor]:
    """Return what makes executors of the kind that is asked for.

    Parameters
    ----------
    text : str
        See `api.settings.addresses.parse_executor`. ``processes`` is one process per core.
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
        self._pool = process_pool(self._max_workers, 0, None, preload=["solvers.study", "solvers.preloaded"])

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
