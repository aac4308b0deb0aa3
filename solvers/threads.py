"""Running compiled searches side by side, with Ctrl-C ending them early instead of losing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from solvers.search import Search

__all__ = ["run_together"]

Result = TypeVar("Result")


def run_together(search: Search, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run tasks that release the GIL on the search's workers; Ctrl-C cancels the search and lets them finish early."""
    with ThreadPoolExecutor(max(1, min(search.workers, len(tasks)))) as threads:
        futures = [threads.submit(task) for task in tasks]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            search.cancel()
            return [future.result() for future in futures]
