"""What every registered solver keeps, on small problems of every kind; and that the suite catches what breaks it."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import pytest

import solvers.testing
from placement import Problem, lower_bound
from solvers import Event, Limits, Search, names, solve, solver_from
from solvers.testing import checks
from traces import InputError

OPTIMUM_TOLERANCE = 1e-9
# By name: every process that runs tests collects all of them, and would count the traces of these.
PROBLEMS = (
    "one_gpu",
    "flat_1x2",
    "flat_1x4",
    "two_tiers",
    "uneven_nodes",
    "not_divisible",
    "one_layer",
    "load_cap",
    "layer_caps",
    "robust_cap",
    "imbalance",
    "replicas",
    "dispatch_none",
    "dispatch_gpu",
    "dispatch_cap",
    "dispatch_robust",
    "dispatch_node",
    "pins",
    "pins_and_replicas",
    "groups",
    "uneven_slots",
    "speeds",
    "survive",
    "survive_least",
)
TINY = ("flat", "cap", "layer_cap", "slow_hop", "dispatch_none", "dispatch_gpu", "pin", "not_divisible", "speeds")
CASES = list(itertools.product(names(), PROBLEMS))
WORK = Limits(work=20_000)
problems, tiny_problems = cache(solvers.testing.problems), cache(solvers.testing.tiny_problems)


def problem_for(solver: str, problem: Problem, name: str) -> Problem:
    """Return the problem, or skip the test where the solver does not take it."""
    if reason := solver_from(solver).supports(problem):
        pytest.skip(f"{solver} does not take {name}: {reason}")
    return problem


def test_every_problem_is_here() -> None:
    """A new problem is tried with every solver."""
    assert (tuple(problems()), tuple(tiny_problems())) == (PROBLEMS, TINY)


@cache
def found_by(solver: str, name: str) -> float:
    """Return the score of the plan that one worker and two find with seed 3 and `WORK`; they are compared once."""
    return solvers.testing.check_workers(solver_from(solver), problems()[name], name).score.total


@pytest.mark.parametrize("solver", names())
def test_parameters_are_frozen_and_reasons_are_sentences(solver: str) -> None:
    """What the registry, plans and error messages rely on."""
    solvers.testing.check_interface(solver_from(solver))


@pytest.mark.parametrize(("solver", "name"), CASES)
def test_plan_keeps_hard_constraints_and_its_score(solver: str, name: str) -> None:
    """A plan breaks no hard constraint, and its score is what the cost function says."""
    solvers.testing.check_plan(solver_from(solver), problem_for(solver, problems()[name], name), name)


@pytest.mark.parametrize(("solver", "name"), CASES)
def test_same_seed_and_work_give_the_same_plan_on_any_number_of_cores(solver: str, name: str) -> None:
    """A work limit is deterministic: one worker and two find the same plan."""
    problem_for(solver, problems()[name], name)
    found_by(solver, name)


@pytest.mark.parametrize("solver", names())
@pytest.mark.parametrize("name", ["flat_1x4", "replicas", "dispatch_gpu"])
def test_never_worse_than_its_start(solver: str, name: str) -> None:
    """A good start plan is not lost, even by solvers that make no use of it."""
    solvers.testing.check_start(solver_from(solver), problem_for(solver, problems()[name], name), name)


@cache
def hard(solver: str) -> Problem:
    """Return a problem that few of the solvers finish at once."""
    found = solvers.testing.hard_problem(solver_from(solver))
    assert found is not None
    return found


HARD = [solver for solver in names() if solver != "chain_dp"]  # it takes small problems only; see its own tests


@pytest.mark.parametrize("solver", HARD)
def test_time_limit_is_kept(solver: str) -> None:
    """A search ends within a tenth and 0.2 s of its time limit, where the machine lets it: once in three times."""
    solvers.testing.check_time(solver_from(solver), hard(solver))


@pytest.mark.parametrize("solver", HARD)
def test_cancel_from_another_thread_keeps_the_incumbent(solver: str) -> None:
    """An interrupt ends a search within a second and its best plan is returned."""
    solvers.testing.check_cancel(solver_from(solver), hard(solver))


@pytest.mark.parametrize("solver", HARD)
def test_cancel_by_an_observer_keeps_the_incumbent(solver: str) -> None:
    """An observer that cancels at the first plan gets that plan or a better one, soon."""
    problem, interrupt, seen = hard(solver), threading.Event(), list[tuple[float, float]]()

    def observe(event: Event) -> None:
        if event.kind == "incumbent" and event.score is not None:
            seen.append((time.monotonic(), event.score))
            interrupt.set()

    found = solve(problem, solver, limits=Limits(time_s=30), observe=observe, interrupt=interrupt)
    assert time.monotonic() - seen[0][0] <= 1.0
    assert found.plan.score == min(value for _, value in seen)


@cache
def optimum(name: str) -> float:
    """Return the optimum of a tiny problem."""
    return solvers.testing.brute_force(tiny_problems()[name])


@pytest.mark.parametrize("name", TINY)
def test_instant_bound_is_below_the_optimum(name: str) -> None:
    """The row and column bound alone, before any plan clips it."""
    problem, best = tiny_problems()[name], optimum(name)
    assert lower_bound(problem) <= best + OPTIMUM_TOLERANCE


@pytest.mark.parametrize(("solver", "name"), list(itertools.product(names(), TINY)))
def test_bound_and_score_enclose_the_optimum(solver: str, name: str) -> None:
    """No bound is above the enumerated optimum, no score below it, and a proof of optimality is right."""
    solvers.testing.check_bound(solver_from(solver), problem_for(solver, tiny_problems()[name], name), name)


@pytest.mark.parametrize("solver", ["annealing", "auto"])
@pytest.mark.parametrize("name", TINY)
def test_search_finds_the_optimum_of_tiny_problems(solver: str, name: str) -> None:
    """With a few hundred plans in all, the general solvers find the best one."""
    problem, best = tiny_problems()[name], optimum(name)
    found = solve(problem, solver, limits=Limits(work=20_000), workers=1)
    assert found.plan.score == pytest.approx(best, abs=OPTIMUM_TOLERANCE)


@pytest.mark.parametrize("name", PROBLEMS)
def test_auto_is_never_worse_than_another_solver(name: str) -> None:
    """With the same seed and the same work, the portfolio keeps the best plan of all that fit."""
    problem = problems()[name]
    best = found_by("auto", name)
    for solver in names():
        if solver_from(solver).supports(problem) is None:
            assert best <= found_by(solver, name) + OPTIMUM_TOLERANCE, solver


@pytest.mark.parametrize("name", ["flat_1x4", "two_tiers", "load_cap", "replicas", "dispatch_none"])
def test_names_of_gpus_inside_a_node_do_not_matter(name: str) -> None:
    """Swapping two equal GPUs of a node in all layers leaves the score as it is."""
    solvers.testing.check_names(solver_from("random"), problems()[name], name)


@pytest.mark.parametrize("solver", names())
def test_unsupported_problems_are_refused(solver: str) -> None:
    """What a solver can't take is an input error with a reason, not a wrong answer."""
    reasons = [(problem, solver_from(solver).supports(problem)) for problem in problems().values()]
    refused = [(problem, reason) for problem, reason in reasons if reason]
    if not refused:
        pytest.skip(f"{solver} takes every problem here")
    for problem, reason in refused:
        with pytest.raises(InputError) as caught:
            solve(problem, solver, limits=WORK)
        assert [violation.code for violation in caught.value.violations] == ["unsupported"]
        assert reason in str(caught.value)


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """A stranger's solver: the best of some random plans."""

    trials: int = 50
    name: ClassVar[str] = "shuffle"
    summary: ClassVar[str] = "The best of many random plans."

    def supports(self, problem: Problem) -> str | None:
        """Take what leaves all plans open."""
        return None if problem.is_free and problem.num_slots == problem.num_experts else "it knows no constraints."

    def run(self, problem: Problem, search: Search) -> None:
        """Draw plans until done."""
        rng, shape = np.random.default_rng(search.seed), (problem.num_layers, 1)
        for trial in range(self.trials):
            search.offer(rng.permuted(np.tile(np.arange(problem.num_slots), shape), axis=1), trial)
            if search.progress(trial + 1) >= 1.0:
                return


def test_a_strangers_solver_passes() -> None:
    """The suite runs on a solver that is not registered."""
    solvers.testing.check_solver(Shuffle())


class Broken(Shuffle):
    """What is right with it; its kinds are not."""


class Clocked(Broken):
    """Draws from the clock."""

    def run(self, problem: Problem, search: Search) -> None:
        """Draw one plan."""
        rng = np.random.default_rng(time.monotonic_ns())
        search.offer(rng.permuted(np.tile(np.arange(problem.num_slots), (problem.num_layers, 1)), axis=1))


class ByWorkers(Broken):
    """Draws as many plans as there are workers."""

    def run(self, problem: Problem, search: Search) -> None:
        """Draw plans."""
        for worker in range(search.workers):
            rng = np.random.default_rng([search.seed, search.workers, worker])
            search.offer(rng.permuted(np.tile(np.arange(problem.num_slots), (problem.num_layers, 1)), axis=1))


class Endless(Broken):
    """Looks at cancelling only, not at its work or the time."""

    def run(self, problem: Problem, search: Search) -> None:
        """Go on and on."""
        search.offer(np.tile(np.arange(problem.num_slots), (problem.num_layers, 1)))
        while search.limit != "cancelled":
            time.sleep(0.01)


class Late(Shuffle):
    """Keeps its work, but looks at nothing for longer than its time where there is a clock."""

    def run(self, problem: Problem, search: Search) -> None:
        """Sleep."""
        super().run(problem, search)
        if search.remaining_s is not None:
            time.sleep(1.5)


class Incomplete(Broken):
    """Loses an expert."""

    def run(self, problem: Problem, search: Search) -> None:
        """Offer a broken plan."""
        search.offer(np.zeros((problem.num_layers, problem.num_slots), np.int32))


class Empty(Broken):
    """Offers nothing."""

    def run(self, problem: Problem, search: Search) -> None:
        """Do nothing."""


class Boaster(Broken):
    """Says that its first plan is the best there is."""

    def run(self, problem: Problem, search: Search) -> None:
        """Prove what is not so."""
        search.offer(np.tile(np.arange(problem.num_slots)[::-1], (problem.num_layers, 1)))
        search.exhausted()


class Bounder(Broken):
    """Reports its score as a bound."""

    def run(self, problem: Problem, search: Search) -> None:
        """Bound by what is none."""
        search.bound(search.offer(np.tile(np.arange(problem.num_slots)[::-1], (problem.num_layers, 1))))


class Fails(Shuffle):
    """Fails after its first plan."""

    def run(self, problem: Problem, search: Search) -> None:
        """Fail."""
        search.offer(np.tile(np.arange(problem.num_slots), (problem.num_layers, 1)))
        raise ZeroDivisionError


@dataclass
class Loose:
    """Parameters that change, and no summary."""

    name: ClassVar[str] = "loose"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for endless solvers for a few seconds only."""
    monkeypatch.setattr(checks, "PATIENCE_S", 5.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("solver", "said"),
    [
        (Clocked(), "the same seed and work gave two plans"),
        (ByWorkers(), "one worker and two gave two plans"),
        (Endless(), "search.progress"),
        (Late(trials=1), "look at search.done"),
        (Incomplete(), "made an invalid plan"),
        (Empty(), "offers no plan"),
        (Boaster(), "optimal, but"),
        (Bounder(), "the bound .* is above the score"),
        (Fails(), "failed after this plan"),
        (Loose(), "frozen=True"),
    ],
    ids=lambda item: type(item).__name__.lower() if not isinstance(item, str) else "",
)
def test_broken_solvers_are_caught(solver: object, said: str) -> None:
    """Each fault ends in an AssertionError that says what is wrong."""
    with pytest.raises(AssertionError, match=said):
        solvers.testing.check_solver(solver)  # type: ignore[arg-type]  # one of them is no solver at all
