"""The best of many seeds: the same plan whatever runs the searches, and what is kept when some of them fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import pytest

from placement import Constraints, Pin, Problem, Termination, Topology
from solvers import Event, Front, Limits, NoPlanError, Request, front, solve
from solvers.fronts.pareto import nondominated
from solvers.seeds import MakeExecutor, best_of_seeds, front_of_seeds
from tests.builders.traces import profile_of
from traces import InputError, Profile
from traces.synthetic import Synthetic

SEEDS = 5
PARAMS = Synthetic(num_layers=4, num_experts=16, top_k=2, num_tokens=1024, tokens_per_sequence=32)


@pytest.fixture(scope="module")
def profile() -> Profile:
    """Return a profile with planted affinity."""
    return profile_of(PARAMS)


@pytest.fixture(scope="module")
def problem(profile: Profile) -> Problem:
    """Return a problem of it."""
    return Problem(profile, Topology.parse("1x4"))


def request(seeds: int = SEEDS, **changes: Any) -> Request:
    """Ask for random plans, from seed 10 on: each seed has another."""
    asked: dict[str, Any] = {
        "topology": "1x4",
        "solver": "random",
        "limits": Limits(work=3),
        "seed": 10,
        "seeds": seeds,
    }
    return Request(**(asked | changes))


def threads(count: int) -> MakeExecutor:
    """Search in threads."""
    return lambda: ThreadPoolExecutor(count)


@pytest.mark.parametrize("executor", [None, threads(1), threads(3)], ids=["here", "one thread", "three threads"])
def test_best_of_seeds_is_that_of_a_loop(problem: Problem, executor: MakeExecutor | None) -> None:
    """The lowest score of seeds 10 to 14 wins, here and on threads; its bound is the highest."""
    limits = Limits(work=3)
    each = [solve(problem, "random", limits=limits, seed=10 + number, workers=1) for number in range(SEEDS)]
    scores = [solution.score.total for solution in each]
    assert len(set(scores)) == SEEDS, "the case is of no use"
    told: list[tuple[int, float | None]] = []
    best = best_of_seeds(problem, request(), executor=executor, progress=lambda *news: told.append(news))
    assert best.plan.score == min(scores)
    expected = each[scores.index(min(scores))].plan
    assert best.plan.physical_to_logical_map.tolist() == expected.physical_to_logical_map.tolist()
    assert best.plan.bound == max(solution.plan.bound or 0.0 for solution in each)
    assert told[-1] == (SEEDS, min(scores))


def test_smallest_seed_of_equal_scores(problem: Problem) -> None:
    """Of plans that are equally good, that of the smallest seed is kept, as its provenance says."""
    best = best_of_seeds(problem, request(solver="contiguous"), executor=threads(3))
    assert best.plan.provenance["seed"] == 10


class Mortal(Executor):
    """A pool whose worker dies of its second task."""

    def __init__(self) -> None:
        self._left = 2
        self._max_workers = 1

    def submit(self, fn: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        self._left -= 1
        future: Future[Any] = Future()
        if self._left > 0:
            future.set_result(fn(*arguments, **options))
        else:
            future.set_exception(BrokenExecutor("a worker died"))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


def test_dead_workers_change_nothing(problem: Problem) -> None:
    """A search whose worker died is made again; after too many deaths its seed is named."""
    whole = best_of_seeds(problem, request(seeds=3), executor=threads(1))
    best = best_of_seeds(problem, request(seeds=3), executor=Mortal)
    assert best.plan.physical_to_logical_map.tolist() == whole.plan.physical_to_logical_map.tolist()
    with pytest.raises(InputError, match="seed 14 died"):
        best_of_seeds(problem, request(seeds=5), executor=Mortal)


def test_ctrl_c_keeps_the_best_so_far(problem: Problem) -> None:
    """The searches that have ended are not lost, and the plan says that there are fewer."""

    def stop(done: int, score: float | None) -> None:
        if done == 2:
            raise KeyboardInterrupt

    best = best_of_seeds(problem, request(), executor=threads(1), progress=stop)
    whole = best_of_seeds(problem, request(seeds=2), executor=threads(1))
    assert best.plan.score == whole.plan.score
    assert best.termination.limit == "cancelled"
    assert best.plan.warnings[-1] == "Stopped after 2 of 5 seeds."


def test_ctrl_c_before_the_first_front_is_passed_on() -> None:
    """There is nothing to keep."""

    def none(seed: int) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        front_of_seeds(none, range(3), points=3)


@pytest.mark.parametrize("processes", [False, True])
def test_no_seed_finds_a_plan(profile: Profile, processes: bool) -> None:
    """Why there is none is told, from another process as well: here, all experts but one would have to share a GPU."""
    pins = tuple(Pin(expert=expert, gpu=gpu) for expert in range(1, 16) for gpu in (0, 2, 3))
    hopeless = Problem(profile, Topology.parse("1x4"), constraints=Constraints(forbidden=pins))
    executor = (lambda: ProcessPoolExecutor(1, mp_context=get_context("spawn"))) if processes else None
    with pytest.raises(NoPlanError) as error:
        best_of_seeds(hopeless, request(seeds=2, solver="contiguous"), executor=executor)
    assert error.value.termination.reason == "no_plan"


def test_an_observer_is_told_what_is_better_than_all_seeds_before(problem: Problem) -> None:
    """Plans of a later seed that are worse than those of an earlier one are no news."""
    each = [solve(problem, "random", limits=Limits(work=3), seed=10 + number).score.total for number in range(SEEDS)]
    expected = [score for number, score in enumerate(each) if score < min(each[:number], default=float("inf"))]
    assert len(expected) < SEEDS, "the case is of no use"
    told: list[Event] = []
    best_of_seeds(problem, request(), observe=told.append)
    assert [event.score for event in told] == expected


def test_an_interrupt_ends_the_seeds(problem: Problem) -> None:
    """The plan of the search that it ended is kept; no other seed is begun, and the plan says so."""
    interrupt = threading.Event()
    best = best_of_seeds(problem, request(), observe=lambda event: interrupt.set(), interrupt=interrupt)
    assert best.plan.provenance["seed"] == 10
    assert best.termination.limit == "cancelled"
    assert not best.termination.deterministic
    assert best.plan.warnings[-1] == "Stopped after 1 of 5 seeds."


def test_an_interrupt_after_the_last_seed_takes_nothing_away(problem: Problem) -> None:
    """All seeds were searched: nothing was stopped."""
    interrupt = threading.Event()

    def late(done: int, score: float | None) -> None:
        if done == SEEDS:
            interrupt.set()

    best = best_of_seeds(problem, request(), progress=late, interrupt=interrupt)
    whole = best_of_seeds(problem, request())
    assert best.plan.warnings == whole.plan.warnings
    assert best.termination == whole.termination


@pytest.fixture(scope="module")
def search(problem: Problem) -> Callable[..., Front]:
    """Return the search for a small front of the problem."""
    return partial(front, problem, solver="assignment", limits=Limits(work=8000), points=4, workers=1)


def test_front_of_seeds_is_that_of_all_points(search: Callable[..., Front]) -> None:
    """Whatever searches: no point of any seed beats one of the front, and every point is one of them."""
    told: list[int] = []
    found = front_of_seeds(search, range(3, 6), points=64, executor=threads(2), progress=told.append)
    each = [search(seed=seed) for seed in (3, 4, 5)]
    points = [(point.imbalance, point.traffic) for one in each for point in one.points]
    expected = [points[item] for item in nondominated(*zip(*points, strict=True))]
    assert [(point.imbalance, point.traffic) for point in found.points] == expected
    assert len(expected) > 1
    assert told == [1, 2, 3]
    few = front_of_seeds(search, range(3, 6), points=3, executor=threads(1))
    assert len(few.points) <= 3
    assert {few.points[0].imbalance, few.points[-1].imbalance} == {expected[0][0], expected[-1][0]}


def test_ctrl_c_keeps_the_fronts_so_far(search: Callable[..., Front]) -> None:
    """And says so."""

    def stop(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    found = front_of_seeds(search, range(4), points=9, progress=stop)
    whole = front_of_seeds(search, range(2), points=9)
    assert [point.traffic for point in found.points] == [point.traffic for point in whole.points]
    assert found.stopped
    assert not whole.stopped


def test_an_interrupt_ends_the_fronts(search: Callable[..., Front]) -> None:
    """No other seed is begun, and the front says that it was stopped."""
    interrupt = threading.Event()
    told: list[int] = []
    stopping = partial(search, interrupt=interrupt, observe=lambda event: interrupt.set())
    found = front_of_seeds(stopping, range(4), points=9, progress=told.append)
    assert found.stopped
    assert told == [1]


def test_no_front_of_any_seed() -> None:
    """Why there is none is told, if every search says so."""
    why = Termination(reason="no_plan", limit="work", detail="There is none.", deterministic=True)

    def none(seed: int) -> Front:
        raise NoPlanError(why)

    with pytest.raises(NoPlanError) as error:
        front_of_seeds(none, range(2), points=3)
    assert error.value.termination == why


def test_a_start_reaches_every_seed(problem: Problem) -> None:
    """The best of all is never worse than it."""
    start = best_of_seeds(problem, request(seeds=20)).plan
    found = best_of_seeds(problem, replace(request(seeds=2), start=start))
    assert found.plan.score == start.score
