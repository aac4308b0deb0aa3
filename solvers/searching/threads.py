"""Running compiled searches side by side, with Ctrl-C ending them early instead of losing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from placement import Problem
from solvers.searching.search import Search

__all__ = ["each_layer", "run_together"]

Result = TypeVar("Result")


def run_together(search: Search, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run tasks that release the GIL on the search's workers; Ctrl-C cancels the search and lets them finish early."""
    with ThreadPoolExecutor(max(1, min(search.workers, len(tasks)))) as threads:
        futures: list[Future[Result]] = []
        try:  # from the first task on: leaving the block waits for those that run, whoever stopped them
            futures.extend(threads.submit(task) for task in tasks)
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            search.cancel()
            futures += [threads.submit(task) for task in tasks[len(futures) :]]
            return [future.result() for future in futures]


def each_layer(problem: Problem, search: Search, call: Callable[[Search, int], None]) -> None:
    """Call for every layer with its part of time and work, on all workers."""
    workers = max(1, min(search.workers, problem.num_layers))

    def task(first: int) -> Callable[[], None]:
        rows = range(first, problem.num_layers, workers)
        # The worker's layers share its time; every layer has the same part of the work.
        whole = search.part(0.99, 0, work_share=1.0, spare_offers=1)

        def run() -> None:
            for done, layer in enumerate(rows):
                if whole.done:
                    return
                call(whole.part(1 / (len(rows) - done), layer, work_share=1 / problem.num_layers), layer)

        return run

    run_together(search, [task(first) for first in range(workers)])
