"""Running CP-SAT inside a search: the same on any number of cores, and stopped when the search is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from solvers.searching.search import Search

__all__ = ["TRIALS_PER_UNIT", "cp_sat_solver", "watch"]

POLL_S = 0.02
TRIALS_PER_UNIT = 1_000_000  # of a search's work in one unit of CP-SAT's deterministic time, which is near a second
MAX_SEED = 2**31 - 1


def cp_sat_solver(seed: int, units: float | None) -> Any:
    """Return a CP-SAT solver whose result depends on nothing but the model, the seed and its deterministic time.

    Parameters
    ----------
    seed : int
    units : float or None
        Limit of deterministic time.
    """
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1  # as a parallel search may end in another optimum
    solver.parameters.linearization_level = 2
    solver.parameters.random_seed = seed & MAX_SEED
    solver.parameters.catch_sigint_signal = False  # Ctrl-C is Python's
    if units is not None:
        solver.parameters.max_deterministic_time = units
    return solver


def watch(search: Search, solver: Any, solve: Callable[[], Any]) -> Any:
    """Run the library in a thread and stop it when the search is done, so that Ctrl-C and cancelling reach it.

    Returns
    -------
    object
        What `solve` returns; what it raises is raised.
    """
    result: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(solve())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="cp-sat")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_S)
            if search.done:
                solver.stop_search()
    except KeyboardInterrupt:
        search.cancel()
        while thread.is_alive():
            solver.stop_search()
            thread.join(POLL_S)
    if failure:
        raise failure[0]
    return result[0]
