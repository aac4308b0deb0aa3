"""What every registered solver keeps, on small problems of every kind."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from placement import Constraints, Group, LayerCap, Objective, Pin, Problem, Topology, lower_bound, score
from placement.cost.feasibility import broken_constraints
from placement.problem.objective import Dedup
from solvers import Event, Limits, make_plan, names, solve, solver_from
from traces import InputError, Profile, Trace

OPTIMUM_TOLERANCE = 1e-9


def trace(layers: int, experts: int, tokens: int = 300, top_k: int = 2) -> Trace:
    """Tokens that follow one of four hidden teams most of the time, so that there is affinity and skew."""
    rng = np.random.default_rng(7)
    teams = rng.integers(0, experts, (4, layers))
    team = rng.choice(4, tokens, p=[0.4, 0.3, 0.2, 0.1])
    first = np.where(rng.random((tokens, layers)) < 0.7, teams[team], rng.integers(0, experts, (tokens, layers)))
    steps = np.cumsum(rng.integers(1, max(2, experts // top_k), (tokens, layers, top_k - 1)), axis=2)
    ids = np.concatenate([first[:, :, None], (first[:, :, None] + steps) % experts], axis=2)
    return Trace.of(ids, num_experts=experts, seq_id=np.arange(tokens) // 10)


@cache
def profile(layers: int = 2, experts: int = 8) -> Profile:
    """Count such a trace."""
    return Profile.of(trace(layers, experts), workers=1, window_tokens=32)


def dispatch(dedup: Dedup) -> Objective:
    """Return the objective of an engine that dispatches."""
    return Objective(execution="dispatch", dedup=dedup)


def flat(gpus: int) -> Topology:
    """Return GPUs of a single node."""
    return Topology.of((gpus,))


LIMITED = Constraints(
    load_cap=1.3,
    pins=(Pin(expert=0, gpu=3),),
    forbidden=(Pin(expert=1, gpu=0, layer_id=1), Pin(expert=2, gpu=1)),
)
LAYER_CAPS = (LayerCap(layer_id=1, load_cap=1.05),)
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "one_gpu": lambda: Problem(profile(), flat(1)),
    "flat_1x2": lambda: Problem(profile(), flat(2)),
    "flat_1x4": lambda: Problem(profile(), flat(4)),
    "two_tiers": lambda: Problem(profile(), Topology.parse("2x2")),
    "uneven_nodes": lambda: Problem(profile(experts=9), Topology.parse("2+1")),
    "not_divisible": lambda: Problem(profile(experts=7), flat(2)),
    "one_layer": lambda: Problem(profile(layers=1), flat(2)),
    "load_cap": lambda: Problem(profile(), flat(2), constraints=Constraints(load_cap=1.1)),
    "layer_caps": lambda: Problem(profile(), flat(2), constraints=Constraints(layer_load_caps=LAYER_CAPS)),
    "robust_cap": lambda: Problem(profile(), flat(2), constraints=Constraints(load_cap=1.3, load_quantile=0.9)),
    "imbalance": lambda: Problem(profile(), flat(2), objective=Objective(imbalance_weight=1.0)),
    "replicas": lambda: Problem(profile(), flat(4), 3, constraints=Constraints(load_cap=1.2)),
    "dispatch_none": lambda: Problem(profile(), Topology.parse("2x2"), objective=dispatch("none")),
    "dispatch_gpu": lambda: Problem(profile(), flat(4), objective=dispatch("gpu")),
    "dispatch_cap": lambda: Problem(
        profile(),
        Topology.parse("2x2"),
        objective=Objective(execution="dispatch"),
        constraints=Constraints(load_cap=1.1, forbidden=(Pin(expert=1, gpu=0),)),
    ),
    "dispatch_robust": lambda: Problem(
        profile(), flat(4), 3, dispatch("gpu"), Constraints(load_cap=1.3, load_quantile=0.9, load_groups="windows")
    ),
    "dispatch_node": lambda: Problem(profile(), Topology.parse("2x2"), 3, objective=dispatch("node")),
    "pins": lambda: Problem(profile(), Topology.parse("2x2"), constraints=LIMITED),
    "pins_and_replicas": lambda: Problem(
        profile(), Topology.parse("2x2"), 3, constraints=Constraints(pins=(Pin(expert=0, gpu=3), Pin(expert=0, gpu=1)))
    ),
    "groups": lambda: Problem(
        profile(), Topology.parse("2x2"), constraints=Constraints(groups=(Group(experts=(0, 3, 5)),))
    ),
    "uneven_slots": lambda: Problem(profile(), Topology.of((3,), slots=[2, 3, 3])),
    "speeds": lambda: Problem(profile(), Topology.of((2,), speed=[1.0, 2.0]), constraints=Constraints(load_cap=1.2)),
}
CASES = list(itertools.product(names(), PROBLEMS))
WORK = Limits(work=20_000)


def problem_for(solver: str, name: str) -> Problem:
    """Build a problem, or skip the test where the solver does not take it."""
    problem = PROBLEMS[name]()
    if reason := solver_from(solver).supports(problem):
        pytest.skip(f"{solver} does not take {name}: {reason}")
    return problem


@pytest.mark.parametrize(("solver", "name"), CASES)
def test_plan_keeps_hard_constraints_and_its_score(solver: str, name: str) -> None:
    """A plan breaks no hard constraint, and its score is what the cost function says."""
    problem = problem_for(solver, name)
    plan = solve(problem, solver, limits=WORK, workers=1).plan
    assert plan.score is not None
    assert broken_constraints(problem, plan.physical_to_logical_map).found == []
    assert plan.score == pytest.approx(score(problem, plan.physical_to_logical_map).total, abs=1e-12)
    assert plan.bound is None or plan.bound <= plan.score + OPTIMUM_TOLERANCE


@pytest.mark.parametrize(("solver", "name"), CASES)
def test_same_seed_and_work_give_the_same_plan_on_any_number_of_cores(solver: str, name: str) -> None:
    """A work limit is deterministic: one worker and two find the same plan."""
    problem = problem_for(solver, name)
    one, two = (solve(problem, solver, limits=WORK, seed=3, workers=workers).plan for workers in (1, 2))
    assert one.physical_to_logical_map.tolist() == two.physical_to_logical_map.tolist()


@pytest.mark.parametrize("solver", names())
@pytest.mark.parametrize("name", ["flat_1x4", "replicas", "dispatch_gpu"])
def test_never_worse_than_its_start(solver: str, name: str) -> None:
    """A good start plan is not lost, even by solvers that make no use of it."""
    problem = problem_for(solver, name)
    start = solve(problem, "annealing", limits=Limits(work=50_000), seed=1, workers=1).plan
    plan = solve(problem, solver, limits=Limits(work=2000), start=start, workers=1).plan
    assert start.score is not None
    assert plan.score is not None
    assert plan.score <= start.score


@cache
def hard(solver: str) -> Problem:
    """Return a problem that few of the solvers finish at once: a chain, or dispatch for those that take no chain."""
    objectives = (Objective(load_spread_weight=0.0), dispatch("none"), dispatch("gpu"))
    problems = [Problem(profile(4, 16), flat(4), objective=objective) for objective in objectives]
    return next(problem for problem in problems if solver_from(solver).supports(problem) is None)


HARD = [solver for solver in names() if solver != "chain_dp"]  # it takes small problems only; see its own tests


@pytest.mark.parametrize("solver", HARD)
def test_time_limit_is_kept(solver: str) -> None:
    """A search ends within a tenth and 0.2 s of its time limit, where the machine lets it: once in three times."""
    problem, limit = hard(solver), 0.8
    solve(problem, solver, limits=Limits(time_s=limit))  # warm-up: compiles and imports
    taken = []
    for _ in range(3):
        begin = time.monotonic()
        solve(problem, solver, limits=Limits(time_s=limit))
        taken.append(time.monotonic() - begin)
        if taken[-1] <= 1.1 * limit + 0.2:
            return
    pytest.fail(f"it took {taken} s")


@pytest.mark.parametrize("solver", HARD)
def test_cancel_from_another_thread_keeps_the_incumbent(solver: str) -> None:
    """An interrupt ends a search within a second and its best plan is returned."""
    problem, interrupt, at = hard(solver), threading.Event(), [0.0]

    def cancel() -> None:
        at[0] = time.monotonic()
        interrupt.set()

    timer = threading.Timer(0.6, cancel)
    timer.start()
    found = solve(problem, solver, limits=Limits(time_s=30), interrupt=interrupt)
    end = time.monotonic()
    timer.cancel()
    timer.join()
    assert broken_constraints(problem, found.plan.physical_to_logical_map).found == []
    if at[0]:  # else it finished by itself
        assert end - at[0] <= 1.0
        assert found.termination.limit == "cancelled"


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


def optimum(problem: Problem) -> float:
    """Return the least score over all plans with one replica of each expert, by enumeration."""
    E, G, C = problem.num_experts, problem.num_gpus, problem.slots_per_gpu
    rows = []
    for gpus in itertools.product(range(G), repeat=E):
        slots = [[e for e in range(E) if gpus[e] == g] for g in range(G)]
        if all(len(held) <= C for held in slots):
            rows.append([e for held in slots for e in (*held, *[-1] * (C - len(held)))])
    return min(
        score(problem, np.array(table)).total
        for table in itertools.product(rows, repeat=problem.num_layers)
        if not broken_constraints(problem, np.array(table)).found
    )


TINY: dict[str, Callable[[], Problem]] = {
    "flat": lambda: Problem(profile(3, 4), flat(2)),
    "cap": lambda: Problem(profile(3, 4), flat(2), constraints=Constraints(load_cap=1.05)),
    "layer_cap": lambda: Problem(profile(3, 4), flat(2), constraints=Constraints(layer_load_caps=LAYER_CAPS)),
    "slow_hop": lambda: Problem(profile(3, 4), Topology.of((1, 1), rank_cost_matrix=[[0, 0.5], [0.2, 0]])),
    "dispatch_none": lambda: Problem(profile(3, 4), flat(2), objective=dispatch("none")),
    "dispatch_gpu": lambda: Problem(profile(2, 4), flat(2), objective=dispatch("gpu")),
    "pin": lambda: Problem(profile(3, 4), flat(2), constraints=Constraints(pins=(Pin(expert=1, gpu=0),))),
    "not_divisible": lambda: Problem(profile(3, 3), flat(2)),
    "speeds": lambda: Problem(
        profile(3, 4), Topology.of((2,), speed=[1.0, 1.5]), constraints=Constraints(load_cap=1.1)
    ),
}


@cache
def tiny(name: str) -> tuple[Problem, float]:
    """Return a tiny problem and its optimum."""
    problem = TINY[name]()
    return problem, optimum(problem)


@pytest.mark.parametrize("name", list(TINY))
def test_instant_bound_is_below_the_optimum(name: str) -> None:
    """The row and column bound alone, before any plan clips it."""
    problem, best = tiny(name)
    assert lower_bound(problem) <= best + OPTIMUM_TOLERANCE


@pytest.mark.parametrize(("solver", "name"), list(itertools.product(names(), TINY)))
def test_bound_and_score_enclose_the_optimum(solver: str, name: str) -> None:
    """No bound is above the enumerated optimum, no score below it, and a proof of optimality is right."""
    problem, best = tiny(name)
    if reason := solver_from(solver).supports(problem):
        pytest.skip(f"{solver} does not take {name}: {reason}")
    found = solve(problem, solver, limits=Limits(work=20_000), workers=1)
    assert found.plan.score is not None
    assert found.plan.score >= best - OPTIMUM_TOLERANCE
    if found.plan.bound is not None:
        assert found.plan.bound <= best + OPTIMUM_TOLERANCE
    if found.termination.reason == "optimal":
        assert found.plan.score == pytest.approx(best, abs=OPTIMUM_TOLERANCE)


@pytest.mark.parametrize("solver", ["annealing", "auto"])
@pytest.mark.parametrize("name", list(TINY))
def test_search_finds_the_optimum_of_tiny_problems(solver: str, name: str) -> None:
    """With a few hundred plans in all, the general solvers find the best one."""
    problem, best = tiny(name)
    found = solve(problem, solver, limits=Limits(work=20_000), workers=1)
    assert found.plan.score == pytest.approx(best, abs=OPTIMUM_TOLERANCE)


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_auto_is_never_worse_than_another_solver(name: str) -> None:
    """With the same seed and the same work, the portfolio keeps the best plan of all that fit."""
    problem = PROBLEMS[name]()
    best = solve(problem, "auto", limits=WORK, seed=3).score.total
    for solver in names():
        if solver_from(solver).supports(problem) is None:
            assert best <= solve(problem, solver, limits=WORK, seed=3).score.total + OPTIMUM_TOLERANCE, solver


@pytest.mark.parametrize("name", ["flat_1x4", "two_tiers", "load_cap", "replicas", "dispatch_none"])
def test_names_of_gpus_inside_a_node_do_not_matter(name: str) -> None:
    """Swapping two equal GPUs of a node in all layers leaves the score as it is."""
    problem = PROBLEMS[name]()
    table = solve(problem, "random", limits=WORK, seed=5).plan.physical_to_logical_map
    slots: npt.NDArray[np.int32] = table.reshape(problem.num_layers, problem.num_gpus, problem.slots_per_gpu).copy()
    slots[:, [0, 1]] = slots[:, [1, 0]]
    swapped = make_plan(problem, slots.reshape(table.shape))
    assert swapped.score == pytest.approx(score(problem, table).total, abs=1e-12)


@pytest.mark.parametrize("solver", names())
def test_unsupported_problems_are_refused(solver: str) -> None:
    """What a solver can't take is an input error with a reason, not a wrong answer."""
    problems = [make() for make in PROBLEMS.values()]
    refused = [(problem, reason) for problem in problems if (reason := solver_from(solver).supports(problem))]
    if not refused:
        pytest.skip(f"{solver} takes every problem here")
    for problem, reason in refused:
        with pytest.raises(InputError) as caught:
            solve(problem, solver, limits=WORK)
        assert [violation.code for violation in caught.value.violations] == ["unsupported"]
        assert reason in str(caught.value)
