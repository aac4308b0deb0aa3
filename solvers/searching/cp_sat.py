"""The one way to run CP-SAT in a search: the same on any number of cores, and stopped when the search is."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from solvers.searching.search import Search

__all__ = ["TRIALS_PER_UNIT", "CpSatOutcome", "run_cp_sat"]

POLL_S = 0.02  # between two looks at the search: a fiftieth of the second in which a search is to end when cancelled
# Trial changes of a search's work in one unit of CP-SAT's deterministic time, which is near a second. Annealing makes
# between some 0.2 million (by replay) and 8 million (by tables, 120 ns a trial) in a second and core.
TRIALS_PER_UNIT = 1_000_000
MAX_SEED = 2**31 - 1  # CP-SAT's seeds are 32-bit integers

Status = Literal["optimal", "feasible", "infeasible", "unknown"]


def _holds_nothing(literal: Any) -> bool:
    raise ValueError("CP-SAT found no solution that literals could have a value in")


@dataclass(frozen=True, kw_only=True)
class CpSatOutcome:
    """What a run found.

    Attributes
    ----------
    status : {"optimal", "feasible", "infeasible", "unknown"}
        ``feasible``: a solution that is not proven; ``unknown``: a limit came before the first one.
    holds : callable
        Whether a literal is true in the solution; for "optimal" and "feasible" only.
    bound : float
        No solution has a lower objective, in the model's units; -inf if nothing is proven.
    work : int
        Trial changes that the run counts for.
    """

    status: Status
    work: int
    bound: float = -math.inf
    holds: Callable[[Any], bool] = field(default=_holds_nothing, repr=False)

    @property
    def found(self) -> bool:
        """Whether there is a solution."""
        return self.status in ("optimal", "feasible")


def run_cp_sat(
    model: Any,
    search: Search | None,
    *,
    work: float | None = None,
    parallel: bool = False,
    settings: Mapping[str, Any] | None = None,
    on_solution: Callable[[Callable[[Any], bool]], object] | None = None,
    on_bound: Callable[[float], object] | None = None,
    until: Callable[[], bool] | None = None,
) -> CpSatOutcome:
    """Minimise, or maximise, a model within a part of a search.

    The library runs in a thread of its own, so that Ctrl-C and cancelling reach it. A start goes into the model
    (``model.add_hint``).

    Parameters
    ----------
    model : ortools.sat.python.cp_model.CpModel
    search : Search or None
        Its seed, time and cancellation are the run's; None: seed 0, and only `work` ends the run early.
    work : float, optional
        Trial changes after which to stop; infinite for none, the search's own by default. One unit of CP-SAT's
        deterministic time is `TRIALS_PER_UNIT` of them. The same model, seed and work give the same solution.
    parallel : bool
        Use all workers of the search where a clock limits it: a parallel run may end in another optimum.
    settings : mapping, optional
        CP-SAT parameters that suit the model.
    on_solution : callable, optional
        Called with ``holds`` for every better solution, from the library's thread.
    on_bound : callable, optional
        Called with every better bound, in the model's units.
    until : callable, optional
        Says when to stop; by default when the search is done.

    Returns
    -------
    CpSatOutcome

    Raises
    ------
    RuntimeError
        If CP-SAT does not take the model.
    """
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    parameters = solver.parameters
    limit = search.work if work is None and search is not None else work
    clocked = search is not None and search.work is None and search.remaining_s is not None
    parameters.num_workers = search.workers if parallel and clocked and search is not None else 1
    parameters.random_seed = 0 if search is None else search.seed & MAX_SEED
    parameters.catch_sigint_signal = False  # Ctrl-C is Python's
    for name, value in (settings or {}).items():
        setattr(parameters, name, value)
    if limit is not None and math.isfinite(limit):
        parameters.max_deterministic_time = limit / TRIALS_PER_UNIT
    if until is None and search is not None and search.remaining_s is not None:
        parameters.max_time_in_seconds = search.remaining_s
    stop = until or (lambda: search is not None and search.done)
    watched = _Watched(solver)

    class Solutions(cp_model.CpSolverSolutionCallback):
        def on_solution_callback(self) -> None:
            if on_solution is not None:
                watched.guard(lambda: on_solution(self.boolean_value))

    if on_bound is not None:
        solver.best_bound_callback = lambda value: watched.guard(lambda: on_bound(value))
    callback = Solutions() if on_solution is not None else None
    status = watched.run(lambda: solver.solve(model, callback), stop, search)
    spent = math.ceil(solver.deterministic_time * TRIALS_PER_UNIT)
    if status == cp_model.MODEL_INVALID:
        raise RuntimeError(f"CP-SAT does not take the model: {model.validate()}")
    if status == cp_model.INFEASIBLE:
        return CpSatOutcome(status="infeasible", work=spent)
    bound = float(solver.best_objective_bound)
    if status == cp_model.UNKNOWN:
        return CpSatOutcome(status="unknown", work=spent, bound=bound)
    return CpSatOutcome(
        status="optimal" if status == cp_model.OPTIMAL else "feasible",
        work=spent,
        bound=bound,
        holds=solver.boolean_value,
    )


class _Watched:
    """The library's thread, and the first failure of what it calls back."""

    def __init__(self, solver: Any) -> None:
        self.solver = solver
        self.failure: BaseException | None = None

    def guard(self, call: Callable[[], object]) -> None:
        """Keep a failure of a call from the library's own code, to raise it outside."""
        try:
            if self.failure is None:
                call()
        except BaseException as error:
            self.failure = error
            self.solver.stop_search()

    def run(self, solve: Callable[[], Any], stop: Callable[[], bool], search: Search | None) -> Any:
        """Run the library until it ends or `stop` says so; raise what failed."""
        result: list[Any] = []
        thread = threading.Thread(target=lambda: self.guard(lambda: result.append(solve())), name="cp-sat")
        thread.start()
        try:
            while thread.is_alive():
                thread.join(POLL_S)
                if stop():
                    self.solver.stop_search()
        except KeyboardInterrupt:
            if search is not None:
                search.cancel()
            while thread.is_alive():
                self.solver.stop_search()
                thread.join(POLL_S)
            if search is None:
                raise
        if self.failure is not None:
            raise self.failure
        return result[0]
