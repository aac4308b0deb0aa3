"""What `solve` makes of a search: faults, limits and what it says of them."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from placement import Constraints, Objective, Problem, Topology
from solvers import Event, Limits, NoPlanError, Search, solve
from solvers.methods.registry import Solver
from solvers.solving.warm_up import warm_up
from tests.builders.problems import problem_of
from tests.builders.traces import random_trace
from traces import Profile, Trace

# Three layers of tokens that wander.
WANDERING = random_trace(0, 400, 3, 8, 1)


@dataclass(frozen=True)
class Scripted:
    """A solver that offers the plan in order and then does what it is told to."""

    then: Callable[[Search], None]

    name: ClassVar[str] = "scripted"
    summary: ClassVar[str] = "For tests."

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, problem: Problem, search: Search) -> None:
        search.offer(np.tile(np.arange(problem.num_experts), (problem.num_layers, 1)))
        self.then(search)


@pytest.mark.parametrize("error", [ValueError("odd"), MemoryError(), NoPlanError.__new__(NoPlanError)])
def test_solver_that_fails_keeps_its_incumbent(error: Exception) -> None:
    """Whatever the fault, the plan that was found is returned, with a word about it."""

    def fail(search: Search) -> None:
        raise error

    found = solve(problem_of(WANDERING, "1x2"), Scripted(fail))
    assert found.plan.score is not None
    assert "failed after this plan" in found.termination.detail


def test_solver_that_fails_without_a_plan_raises() -> None:
    """There is nothing to return, so the fault is passed on."""

    class Empty(Scripted):
        def run(self, problem: Problem, search: Search) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        solve(problem_of(WANDERING, "1x2"), Empty(lambda search: None))


def test_exception_of_an_observer_is_passed_on() -> None:
    """A fault of the caller's observer is not taken for one of the solver."""

    def observe(event: Event) -> None:
        if event.kind == "incumbent":
            raise RuntimeError("observer's own")

    with pytest.raises(RuntimeError, match="observer's own"):
        solve(problem_of(WANDERING, "1x2"), "annealing", limits=Limits(work=10_000), observe=observe)


def test_bound_above_a_plan_is_a_fault() -> None:
    """A bound that a plan beats is no bound: it is told, not clipped away."""
    with pytest.raises(RuntimeError, match="above the score"):
        solve(problem_of(WANDERING, "1x2"), Scripted(lambda search: search.bound(2.0)))


@pytest.mark.parametrize("solver", ["contiguous", "assignment"])
@pytest.mark.parametrize("limits", [Limits(work=10**9), Limits(time_s=60)])
def test_search_that_ends_by_itself_names_no_limit(solver: str, limits: Limits) -> None:
    """A limit that was not reached did not end the search, and took nothing from its plan."""
    found = solve(problem_of(WANDERING, "1x2"), solver, limits=limits)
    assert found.termination.limit is None
    assert found.termination.deterministic


def test_work_that_is_used_up_is_the_limit() -> None:
    """Annealing makes as many trials as it may."""
    found = solve(problem_of(random_trace(0, 400, 3, 16, 1), "1x4"), "annealing", limits=Limits(work=5000))
    assert found.termination.limit == "work"
    assert found.termination.deterministic


def test_one_gpu_is_proven_not_stopped() -> None:
    """Nothing to decide: the clock has no part in it."""
    found = solve(problem_of(WANDERING, "1x1"), "auto", limits=Limits(time_s=5))
    assert (found.termination.reason, found.termination.limit) == ("optimal", None)


def test_gap_limit_is_not_deterministic() -> None:
    """The moment at which a gap is reached depends on the cores."""
    assert not Limits(work=1000, gap=0.1).deterministic


def test_assignment_does_not_call_a_plan_optimal_whose_spread_counts() -> None:
    """Layers are placed exactly for traffic alone; experts that peak together are another matter."""
    rng = np.random.default_rng(1)
    ids = np.repeat(rng.integers(0, 2, 40), 16)[:, None, None] * 2 + rng.integers(0, 2, (640, 1, 1))
    objective = Objective(
        execution="dispatch",
        dedup="none",
        load_excess_weight=0.0,
        load_spread_weight=3.0,
        load_spread_tolerance=0.0,
        replica_policy="fair",
        imbalance_weight=0.0,
    )
    profile = Profile.of(Trace.of(ids, num_experts=4), workers=1, window_tokens=16)
    spread = Problem(profile, Topology.of((2,)), objective=objective, constraints=Constraints(load_cap=1.9))
    found = solve(spread, "assignment")
    best = solve(spread, "annealing", limits=Limits(work=100_000))
    assert best.score.total < found.score.total
    assert found.termination.reason == "feasible"


def test_ctrl_c_while_loops_are_compiled_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the tiny search that compiles; the search that was asked for does not begin."""

    class Stopped:
        name: ClassVar[str] = "annealing"
        summary: ClassVar[str] = "Stops."

        def supports(self, problem: Problem) -> str | None:
            return None

        def run(self, problem: Problem, search: Search) -> None:
            search.cancel()

    monkeypatch.setattr("solvers.solving.warm_up._done", set())
    with pytest.raises(KeyboardInterrupt):
        warm_up(problem_of(WANDERING, "1x2"), Stopped())


def test_compiling_comes_before_the_clock_and_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit begins after the warm-up, which no observer sees and which runs once."""
    made: list[str] = []

    def slow(problem: Problem, method: Solver, seconds: float | None) -> None:
        made.append(method.name)
        time.sleep(1.5)

    monkeypatch.setattr("solvers.solving.solving.warm_up", slow)
    events: list[Event] = []
    found = solve(problem_of(WANDERING, "1x2"), "annealing", limits=Limits(time_s=0.3), observe=events.append)
    assert made == ["annealing"]
    assert found.elapsed_s < 1.4
    assert events[0].elapsed_s < 1.4


def test_ctrl_c_that_is_lost_ends_the_search_as_well() -> None:
    """A callback of a library can't pass the exception on; the search has been told before."""

    def lose(search: Search) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert search.done

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    try:
        found = solve(problem_of(WANDERING, "1x2"), Scripted(lose), limits=Limits(time_s=60))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert found.termination.limit == "cancelled"


def test_ctrl_c_of_others_stays_theirs() -> None:
    """Whoever handles the signal keeps it."""
    taken: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: taken.append(number))
    try:
        found = solve(
            problem_of(WANDERING, "1x2"),
            Scripted(lambda search: signal.raise_signal(signal.SIGINT)),
            limits=Limits(work=9),
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert taken == [signal.SIGINT]
    assert found.termination.limit != "cancelled"
