"""How many cores there are to use, the one thread pool pattern of the compiled loops, and work on any executor."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["available_cores", "map_executor", "map_threads"]

MAX_DEATHS = 3
Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Return the cores that this process may run on (its CPU affinity)."""
    return max(1, len(os.sched_getaffinity(0)))


def map_threads(function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None) -> list[Result]:
    """Apply `function`, which releases the GIL, to `items` in threads; results in the order of the items.

    Parameters
    ----------
    function : callable
    items : iterable
    workers : int, optional
        Threads; all available cores by default.
    """
    listed = list(items)
    count = min(available_cores() if workers is None else workers, len(listed))
    if count <= 1:
        return [function(item) for item in listed]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, listed))


def map_executor(
    executor: Executor | Callable[[], Executor],
    function: Callable[[Item], Result],
    items: Sequence[Item],
    lost: Callable[[Item], Exception],
) -> Iterator[Result]:
    """Apply `function` to items on an executor and yield the results in the order of the items.

    At most two tasks per worker are ahead of what was taken, however many items there are.

    Parameters
    ----------
    executor : Executor or callable
        Or what makes one: then it is made anew, up to 3 times, when a worker has died, and shut down in the end.
    function : callable
    items : sequence
    lost : callable
        Returns the error to raise when workers died again and again, of about this item.
    """
    make = None if isinstance(executor, Executor) else executor
    pool = executor if isinstance(executor, Executor) else executor()
    ahead = 2 * int(getattr(pool, "_max_workers", None) or available_cores())
    waiting, deaths = deque(items), 0
    pending: deque[_Task[Item, Result]] = deque()
    complete = False
    try:
        while waiting or pending:
            try:
                while waiting and len(pending) < ahead:
                    pending.append(_Task(waiting.popleft()))
                for task in pending:
                    if task.future is None:
                        task.future = pool.submit(function, task.item)
                assert pending[0].future is not None
                result = pending[0].future.result()
            except BrokenExecutor as error:
                deaths += 1
                if make is None or deaths > MAX_DEATHS:
                    raise lost(pending[0].item) from error
                pool.shutdown(wait=False, cancel_futures=True)
                for task in pending:
                    task.forget_if_lost()
                pool = make()
                continue
            pending.popleft()
            yield result
        complete = True
    finally:
        for task in pending:
            if task.future is not None:
                task.future.cancel()
        if make is not None:
            pool.shutdown(wait=complete, cancel_futures=True)


@dataclass
class _Task(Generic[Item, Result]):
    """An item, and its result to be, once it was submitted."""

    item: Item
    future: Future[Result] | None = None

    def forget_if_lost(self) -> None:
        """Have it submitted again, unless its result had arrived before the pool broke."""
        future = self.future
        if future is not None and (
            not future.done() or future.cancelled() or isinstance(future.exception(), BrokenExecutor)
        ):
            self.future = None
