"""The best of many seeds: the same plan whatever runs the searches, and what is kept when some of them fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from api.planning import PlanRequest, Prepared, prepare
from typer.testing import CliRunner

from api.cli import app
from api.jobs.executors import executor_factory
from placement import Constraints, Pin, load_topology
from solvers import Front, Limits, NoPlanError, front, solve
from solvers.fronts.pareto import nondominated
from solvers.seeds import Restarts, best_of_seeds, front_of_seeds
from traces import InputError, load

SEEDS = 5


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, trace_bytes: bytes) -> Path:
    """Write the small valid trace."""
    path = tmp_path_factory.mktemp("restarts") / "trace.npz"
    path.write_bytes(trace_bytes)
    return path


@pytest.fixture(scope="module")
def request_() -> PlanRequest:
    """Ask for random plans: each seed has another."""
    return PlanRequest(topology=load_topology("1x4"), solver="random", limits=Limits(work=3), seed=10)


@pytest.fixture(scope="module")
def prepared(path: Path, request_: PlanRequest) -> Prepared:
    """Return the problem of the trace."""
    return prepare(load(path), request_, workers=1)


def threads(count: int, seeds: int = SEEDS) -> Restarts:
    """Search in threads."""
    return Restarts(seeds=seeds, executor=lambda: ThreadPoolExecutor(count))


@pytest.mark.parametrize("count", [1, 3])
def test_best_of_seeds_is_that_of_a_loop(prepared: Prepared, request_: PlanRequest, count: int) -> None:
    """The lowest score of seeds 10 to 14 wins, on one thread and on three; its bound is the highest."""
    limits = request_.limits
    each = [solve(prepared.problem, "random", limits=limits, seed=10 + number, workers=1) for number in range(SEEDS)]
    scores = [solution.score.total for solution in each]
    assert len(set(scores)) == SEEDS, "the case is of no use"
    told: list[tuple[int, float | None]] = []
    best = best_of_seeds(prepared, request_, threads(count), progress=lambda *news: told.append(news))
    assert best.plan.score == min(scores)
    expected = each[scores.index(min(scores))].plan
    assert best.plan.physical_to_logical_map.tolist() == expected.physical_to_logical_map.tolist()
    assert best.plan.bound == max(solution.plan.bound or 0.0 for solution in each)
    assert told[-1] == (SEEDS, min(scores))


def test_smallest_seed_of_equal_scores(prepared: Prepared, request_: PlanRequest) -> None:
    """Of plans that are equally good, that of the smallest seed is kept, as its provenance says."""
    best = best_of_seeds(prepared, replace(request_, solver="contiguous"), threads(3))
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


def test_dead_workers_change_nothing(prepared: Prepared, request_: PlanRequest) -> None:
    """A search whose worker died is made again; after too many deaths its seed is named."""
    whole = best_of_seeds(prepared, request_, threads(1, seeds=3))
    best = best_of_seeds(prepared, request_, Restarts(seeds=3, executor=Mortal))
    assert best.plan.physical_to_logical_map.tolist() == whole.plan.physical_to_logical_map.tolist()
    with pytest.raises(InputError, match="seed 14 died"):
        best_of_seeds(prepared, request_, Restarts(seeds=5, executor=Mortal))


def test_ctrl_c_keeps_the_best_so_far(prepared: Prepared, request_: PlanRequest) -> None:
    """The searches that have ended are not lost, and the plan says that there are fewer."""

    def stop(done: int, score: float | None) -> None:
        if done == 2:
            raise KeyboardInterrupt

    best = best_of_seeds(prepared, request_, threads(1), progress=stop)
    whole = best_of_seeds(prepared, request_, threads(1, seeds=2))
    assert best.plan.score == whole.plan.score
    assert best.termination.limit == "cancelled"
    assert best.plan.warnings[-1] == "Stopped after 2 of 5 seeds."


def test_no_seed_finds_a_plan(path: Path, request_: PlanRequest) -> None:
    """Why there is none is told, from another process as well: here, all experts but one would have to share a GPU."""
    pins = tuple(Pin(expert=expert, gpu=gpu) for expert in range(1, 32) for gpu in (0, 2, 3))
    hopeless = replace(request_, solver="contiguous", constraints=Constraints(forbidden=pins))
    problem = prepare(load(path), hopeless, workers=1)
    with pytest.raises(NoPlanError) as error:
        best_of_seeds(problem, hopeless, Restarts(seeds=2, executor=executor_factory("processes")))
    assert error.value.termination.reason == "no_plan"


def test_command_searches_with_seeds(path: Path, tmp_path: Path) -> None:
    """`solve --seeds` writes the best plan, of processes; an executor of an unknown kind is refused."""
    plan = tmp_path / "plan.json"
    wanted = ["solve", str(path), "--topology", "1x4", "--solver", "random", "--work-limit", "3", "--json"]
    one = CliRunner().invoke(app, wanted)
    many = CliRunner().invoke(app, [*wanted, "--seeds", "4", "-o", str(plan)])
    assert many.exit_code == 0, many.stderr
    assert json.loads(many.stdout)["score"] <= json.loads(one.stdout)["score"]
    assert json.loads(plan.read_text())["provenance"]["seed"] in range(4)
    refused = CliRunner().invoke(app, [*wanted, "--executor", "moon"])
    assert refused.exit_code == 1
    assert "--executor" in refused.stderr


def fronts_of(prepared: Prepared) -> Callable[..., Front]:
    """Return the search for a small front of the problem."""
    return partial(front, prepared.problem, solver="assignment", limits=Limits(work=8000), points=4)


def test_front_of_seeds_is_that_of_all_points(prepared: Prepared) -> None:
    """Whatever searches: no point of any seed beats one of the front, and every point is one of them."""
    search = fronts_of(prepared)
    told: list[int] = []
    found = front_of_seeds(search, 3, threads(2, seeds=3), points=64, progress=told.append)
    each = [search(seed=seed, workers=1) for seed in (3, 4, 5)]
    points = [(point.imbalance, point.traffic) for one in each for point in one.points]
    expected = [points[item] for item in nondominated(*zip(*points, strict=True))]
    assert [(point.imbalance, point.traffic) for point in found.points] == expected
    assert len(expected) > 1
    assert told == [1, 2, 3]
    few = front_of_seeds(search, 3, threads(1, seeds=3), points=3)
    assert len(few.points) <= 3
    assert {few.points[0].imbalance, few.points[-1].imbalance} == {expected[0][0], expected[-1][0]}


def test_ctrl_c_keeps_the_fronts_so_far(prepared: Prepared) -> None:
    """And says so."""

    def stop(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    found = front_of_seeds(fronts_of(prepared), 0, threads(1, seeds=4), points=9, progress=stop)
    whole = front_of_seeds(fronts_of(prepared), 0, threads(1, seeds=2), points=9)
    assert [point.traffic for point in found.points] == [point.traffic for point in whole.points]
    assert found.stopped
    assert not whole.stopped


def test_front_command_searches_with_seeds(path: Path) -> None:
    """`front --seeds` is as good anywhere; processes give what one does after the other."""
    wanted = [
        "front",
        str(path),
        "--topology",
        "1x4",
        "--solver",
        "assignment",
        "--work-limit",
        "8000",
        "--points",
        "4",
    ]
    told = CliRunner().invoke(app, [*wanted, "--seeds", "2", "--executor", "processes", "--json"])
    assert told.exit_code == 0, told.stderr
    problem = prepare(load(path), PlanRequest(topology=load_topology("1x4")), workers=1)
    search = partial(front, problem.problem, solver="assignment", limits=Limits(work=8000), points=4)
    expected = Front.merged([search(seed=seed, workers=1) for seed in (0, 1)], 4)
    assert [point["traffic"] for point in json.loads(told.stdout)["points"]] == [p.traffic for p in expected.points]
    refused = CliRunner().invoke(app, [*wanted, "--executor", "moon"])
    assert refused.exit_code == 1
    assert "--executor" in refused.stderr
