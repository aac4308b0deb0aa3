"""How many cores there are to use, and the one thread pool pattern of the compiled loops."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["available_cores", "map_threads"]

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
