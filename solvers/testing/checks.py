"""What a solver is held to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem, score
from placement.cost.feasibility import broken_constraints
from solvers.methods.registry import Solver
from solvers.plans import NoPlanError, make_plan
from solvers.searching.limits import Limits
from solvers.searching.solution import Solution
from solvers.solving.solving import solve
from solvers.testing.problems import brute_force, hard_problem, problems, tiny_problems

__all__ = [
    "check_bound",
    "check_cancel",
    "check_interface",
    "check_names",
    "check_plan",
    "check_solver",
    "check_start",
    "check_time",
    "check_workers",
]

EXACT = 1e-9  # of scores and bounds that are to be equal
WORK = 20_000
PATIENCE_S = 60.0  # a solver that goes on longer under so little work ignores its limit
TIME_S = 0.8
LATE_S = 0.2  # and a tenth of the limit: a last score, and threads that end
CANCEL_S = 1.0


def check_solver(solver: Solver) -> None:
    """Hold a solver to the contract, on small problems of every kind; it takes a minute or so.

    Parameters
    ----------
    solver : Solver
        Its parameters; it needs no name in the registry.

    Raises
    ------
    AssertionError
        If it breaks the contract; the text says which part, on which problem, and what to do.
    """
    check_interface(solver)
    taken = {name: problem for name, problem in problems().items() if solver.supports(problem) is None}
    assert taken, f"{solver.name} supports none of the problems of solvers.testing.problems()."
    for name, problem in taken.items():
        check_plan(solver, problem, name)
        check_workers(solver, problem, name)
        check_start(solver, problem, name)
        check_names(solver, problem, name)
    for name, problem in tiny_problems().items():
        if solver.supports(problem) is None:
            check_bound(solver, problem, name)
    if (hard := hard_problem(solver)) is not None:
        check_time(solver, hard)
        check_cancel(solver, hard)


def check_interface(solver: Solver) -> None:
    """Check that parameters are frozen and named, and that reasons are sentences."""
    parameters = type(solver).__dict__.get("__dataclass_params__")
    assert is_dataclass(solver), f"{type(solver).__name__} is no dataclass: its fields are its parameters."
    assert parameters is None or parameters.frozen, f"{type(solver).__name__} can be changed: use frozen=True."
    for name in ("name", "summary"):
        text = getattr(solver, name, None)
        assert isinstance(text, str), f"{type(solver).__name__}.{name} is {text!r}, no text."
        assert text, f"{type(solver).__name__}.{name} is empty."
    for name, problem in problems().items():
        reason = solver.supports(problem)
        assert reason is None or (isinstance(reason, str) and reason), (
            f"{solver.name}.supports({name}) is {reason!r}: return None, or a sentence that says why not."
        )


def check_plan(solver: Solver, problem: Problem, name: str) -> None:
    """Check that a plan keeps the hard constraints, and that its score is what the cost function says."""
    with _told(solver, name):
        found = _solve(solver, problem)
        table, total = found.plan.physical_to_logical_map, found.score.total
        broken = broken_constraints(problem, table).found
        assert not broken, f"its plan breaks a constraint: {broken[0]}"
        again = score(problem, table).total
        assert abs(total - again) <= EXACT, f"its plan's score is {total}, but the cost function says {again}."
        assert found.plan.bound is None or found.plan.bound <= total + EXACT, f"its bound is above its score {total}."


def check_workers(solver: Solver, problem: Problem, name: str) -> Solution:
    """Check that the same seed and work give the same plan, whatever the number of workers, and return what they give.

    Seed 3 and a work of 20,000.
    """
    with _told(solver, name):
        one, two = (_solve(solver, problem, seed=3, workers=workers) for workers in (1, 2))
        if _map(one) != _map(two):
            # A third search only tells which fault it is.
            rule = "take randomness from search.seed only, and stop by search.progress(spent)"
            again = _solve(solver, problem, seed=3)
            assert _map(one) == _map(again), f"the same seed and work gave two plans: {rule}."
            raise AssertionError(f"one worker and two gave two plans for the same seed and work: {rule}.")
        return one


def check_start(solver: Solver, problem: Problem, name: str) -> None:
    """Check that a start is not lost."""
    with _told(solver, name):
        start = _start(problem, "annealing" if name != "one_gpu" else "contiguous")
        assert start.score is not None
        found = _solve(solver, problem, work=2000, start=start)
        assert found.score.total <= start.score + EXACT, (
            f"it ends at {found.score.total}, worse than its start {start.score}."
        )


def check_bound(solver: Solver, problem: Problem, name: str) -> None:
    """Check that no bound is above the optimum, no score below it, and that a proof of optimality is right."""
    with _told(solver, name):
        best = brute_force(problem)
        found = _solve(solver, problem)
        total, bound = found.score.total, found.plan.bound
        # Replicas may beat plans without; none of these problems has room for any.
        assert total >= best - EXACT, f"its score {total} is below the optimum {best}."
        if found.termination.reason == "optimal":
            assert total <= best + EXACT, f"it says that {total} is optimal, but {best} is."
        assert bound is None or bound <= best + EXACT, f"its bound {bound} is above the optimum {best}."


def check_names(solver: Solver, problem: Problem, name: str) -> None:
    """Check that exchanging two equal GPUs of a node, in all layers, costs nothing."""
    topology = problem.topology
    equal = topology.gpus_per_node[0] > 1 and topology.fair_share[0] == topology.fair_share[1]
    homeless = problem.objective.execution == "context_coherent" or problem.objective.dedup == "none"
    if not (problem.is_free and equal and homeless):
        return
    with _told(solver, name):
        found = _solve(solver, problem)
        table = found.plan.physical_to_logical_map
        slots: npt.NDArray[np.int32] = table.reshape(problem.num_layers, problem.num_gpus, -1).copy()
        slots[:, [0, 1]] = slots[:, [1, 0]]
        renamed = make_plan(problem, slots.reshape(table.shape)).score
        assert renamed is not None
        assert abs(renamed - found.score.total) <= EXACT, f"with GPUs 0 and 1 exchanged, its plan scores {renamed}."


def check_time(solver: Solver, problem: Problem) -> None:
    """Check that a search ends within a tenth and 0.2 s of its time limit, once in three times."""
    with _told(solver, "hard"):
        limits = Limits(time_s=TIME_S)
        _limited(solver, problem, Limits(time_s=TIME_S / 4))  # compiles and imports
        taken: list[float] = []
        while len(taken) < 3 and (not taken or taken[-1] > 1.1 * TIME_S + LATE_S):
            taken.append(_timed(lambda: _limited(solver, problem, limits)))
        assert taken[-1] <= 1.1 * TIME_S + LATE_S, f"with {TIME_S} s it took {taken} s: look at search.done more often."


def check_cancel(solver: Solver, problem: Problem) -> None:
    """Check that a search that is cancelled ends within a second, and that its best plan is returned."""
    with _told(solver, "hard"):
        interrupt, at = threading.Event(), list[float]()

        def cancel() -> None:
            at.append(time.monotonic())
            interrupt.set()

        timer = threading.Timer(0.6, cancel)
        timer.start()
        found = _limited(solver, problem, Limits(time_s=30), interrupt=interrupt)
        end = time.monotonic()
        timer.cancel()
        timer.join()
        assert not broken_constraints(problem, found.plan.physical_to_logical_map).found, "its plan is broken."
        if at and end >= at[0]:  # else it finished by itself
            assert end - at[0] <= CANCEL_S, f"cancelled, it went on for {end - at[0]:.1f} s: look at search.done."


@cache
def _start(problem: Problem, solver: str) -> Plan:
    return solve(problem, solver, limits=Limits(work=WORK)).plan


def _solve(
    solver: Solver, problem: Problem, *, work: int = WORK, seed: int = 0, workers: int = 1, start: Plan | None = None
) -> Solution:
    """Solve under a work limit; one that is not kept is a fault."""
    return _limited(solver, problem, Limits(work=work), seed=seed, workers=workers, start=start)


def _limited(
    solver: Solver,
    problem: Problem,
    limits: Limits,
    *,
    seed: int = 0,
    workers: int | None = None,
    start: Plan | None = None,
    interrupt: threading.Event | None = None,
) -> Solution:
    """Solve, and end what does not end by itself."""
    interrupt = threading.Event() if interrupt is None else interrupt
    late = threading.Event()

    def give_up() -> None:
        late.set()
        interrupt.set()

    timer = threading.Timer(PATIENCE_S, give_up)
    timer.daemon = True
    timer.start()
    try:
        found = solve(problem, solver, limits=limits, seed=seed, workers=workers, start=start, interrupt=interrupt)
    except NoPlanError as error:
        raise AssertionError(f"it offers no plan ({error}): offer one before the search is done.") from error
    finally:
        timer.cancel()
    assert not late.is_set(), f"under {limits} it did not end in {PATIENCE_S:g} s: stop at search.progress(spent) 1."
    failure = found.termination.detail
    assert "failed after this plan" not in failure, failure
    return found


def _timed(call: Callable[[], object]) -> float:
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


def _map(found: Solution) -> list[list[int]]:
    table: list[list[int]] = found.plan.physical_to_logical_map.tolist()
    return table


@contextmanager
def _told(solver: Solver, name: str) -> Iterator[None]:
    """Say in every failure which solver it is about, and on which problem."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{solver.name} on the problem {name!r}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{solver.name} on the problem {name!r} raises {error!r}") from error
