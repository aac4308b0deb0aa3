"""A Dask cluster as an executor of ``concurrent.futures``. Needs the extra ``dask``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from typing import Any, TypeVar

from distributed import Client, KilledWorker, as_completed

from api.jobs.errors import ExecutorLostError

__all__ = ["ClusterExecutor"]

CONNECT_S = 5.0  # how long to try to reach the scheduler
CLOSE_S = 5.0
Item = TypeVar("Item")
Result = TypeVar("Result")


class ClusterExecutor(Executor):
    """Runs functions on the workers of a scheduler; closing it closes our own connection, never the cluster.

    A task that raises is not run again. One whose worker dies is, elsewhere, by the scheduler: what must not run twice
    has to see to that itself, as `api.store.leases.Lease.begin` does.

    Parameters
    ----------
    address : str
        ``tcp://HOST:PORT`` or ``tls://HOST:PORT``.

    Raises
    ------
    OSError
        If the scheduler can't be reached.
    """

    def __init__(self, address: str) -> None:
        self._client = Client(address, set_as_default=False, timeout=CONNECT_S)
        self._executor = self._client.get_executor(pure=False, retries=0)

    @property
    def lost(self) -> bool:
        """Whether the scheduler went away; the connection does not come back."""
        return bool(self._client.status != "running")

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """Call a function on a worker.

        The future raises BrokenExecutor if workers died of it, and ExecutorLostError if the scheduler went away.
        """
        if self.lost:
            raise ExecutorLostError("The connection to the scheduler is closed.")
        try:
            inner = self._executor.submit(partial(fn, *args, **kwargs))
        except Exception as error:
            if self._client.status == "running":
                raise
            raise ExecutorLostError("The connection to the scheduler was closed.") from error
        outer: Future[Result] = Future()
        outer.add_done_callback(lambda done: inner.cancel() if done.cancelled() else None)
        inner.add_done_callback(lambda done: _pass_on(done, outer))
        return outer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close the connection; without `wait`, what was submitted is given up."""
        if self._client.status == "running":
            self._executor.shutdown(wait=wait)
        self._client.close(timeout=CLOSE_S)

    def reduce(
        self,
        leaf: Callable[[Item], Result],
        merge: Callable[[Result, Result], Result],
        items: Sequence[Item],
        done: Callable[[], None],
    ) -> Result:
        """Apply `leaf` to items and `merge` neighbours until one result is left, which alone comes here.

        The results stay with the workers. Those that are lost with a worker are made again.

        Parameters
        ----------
        leaf, merge : callable
        items : sequence
            At least one.
        done : callable
            Called whenever an item is done.

        Raises
        ------
        BrokenExecutor
            If workers died of a task again and again, or the scheduler went away.
        """
        once = {"pure": False, "retries": 0}
        level = [self._client.submit(leaf, item, **once) for item in items]
        leaves = as_completed(level, loop=self._client.loop)
        height = 0
        while len(level) > 1:
            height += 1  # the higher goes first: results are merged away as soon as they can be
            pairs = [level[start : start + 2] for start in range(0, len(level), 2)]
            level = [
                self._client.submit(merge, *pair, priority=height, **once) if pair[1:] else pair[0] for pair in pairs
            ]
            del pairs
        root = level.pop()
        try:
            for future in leaves:
                # One that is lost with its worker by now, and made again, was done once.
                if future.status in ("error", "cancelled"):
                    break  # the root tells why
                done()
                del future
            result: Result = root.result()
        except KilledWorker as error:
            raise BrokenExecutor(str(error)) from error
        except Exception as error:
            if self._client.status != "running" or root.status in ("cancelled", "lost"):
                raise ExecutorLostError("The scheduler went away.") from error
            raise
        return result


def _pass_on(inner: Future[Any], outer: Future[Any]) -> None:
    if not outer.set_running_or_notify_cancel():
        return
    if inner.cancelled():
        outer.set_exception(ExecutorLostError("The scheduler went away, or dropped the task."))
        return
    error = inner.exception()
    if error is None:
        outer.set_result(inner.result())
    elif isinstance(error, KilledWorker):
        outer.set_exception(BrokenExecutor(str(error)))
    else:
        outer.set_exception(error)
