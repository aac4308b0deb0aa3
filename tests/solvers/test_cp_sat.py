"""Constraint programming: optima and bounds against enumeration, with replicas; limits, neighbourhoods, refusals."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, Group, Objective, Pin, Problem, Topology
from placement.cost.feasibility import broken_constraints
from placement.cost.score import score
from placement.plan.plan import replicas_on_gpu
from placement.problem.objective import Dedup, Ownership, ReplicaPolicy
from solvers import Event, Limits, solve
from solvers.methods.cp_sat.model import PlacementModel
from solvers.methods.cp_sat.patterns import ReplicaPatterns, count_patterns, interchangeable
from solvers.methods.cp_sat.sizes import count_booleans
from solvers.methods.cp_sat.solver import CpSat
from tests.builders.problems import dispatch
from tests.builders.traces import profile_of, staying_trace
from traces import InputError, Profile

TOLERANCE = 1e-9
GRIDS: dict[str, tuple[Topology, int]] = {
    "1x2": (Topology.parse("1x2"), 2),
    "2x1": (Topology.parse("2x1"), 2),
    "1x3": (Topology.of((3,), slots=[2, 1, 1]), 2),
    "directed": (Topology.of((1, 1), rank_cost_matrix=[[0.0, 0.4], [1.0, 0.0]], speed=[1.0, 1.5]), 2),
    "two_nodes": (Topology.of((2, 1), slots=[1, 1, 2]), 2),
    "no_replicas": (Topology.parse("1x3"), 1),
}


def profile(seed: int = 0, layers: int = 2, experts: int = 3, top_k: int = 1, tokens: int = 60) -> Profile:
    """Tokens that like to stay with the experts of their kind, with home ranks 0 and 1."""
    trace = staying_trace(seed, tokens, layers, experts, 0.6, top_k, popularity="random", sources=2)
    return profile_of(trace, window_tokens=16)


def by_room(experts: int, room: int) -> Iterator[tuple[int, ...]]:
    """All that a GPU with so many slots may hold of a layer, empty slots first."""
    return itertools.combinations_with_replacement(range(-1, experts), room)


def least(problem: Problem) -> float:
    """Least score over all maps, replicas and empty slots included, by enumeration without patterns or symmetry."""
    held = [
        [experts + (-1,) * (problem.slots_per_gpu - room) for experts in by_room(problem.num_experts, room)]
        for room in problem.capacity.tolist()
    ]
    rows = [
        np.concatenate(choice)
        for choice in itertools.product(*held)
        if set(range(problem.num_experts)) <= set(np.concatenate(choice).tolist())
    ]
    return min(
        score(problem, np.array(table)).total
        for table in itertools.product(rows, repeat=problem.num_layers)
        if not broken_constraints(problem, np.array(table)).found
    )


def check(problem: Problem) -> None:
    """Compare value, bound and proof with enumeration."""
    best = least(problem)
    found = solve(problem, "cp_sat", limits=Limits(time_s=None)).plan
    assert found.score == pytest.approx(best, abs=TOLERANCE)
    assert found.bound is not None
    assert best - 2 * TOLERANCE * max(1.0, best) <= found.bound <= best + 1e-12 * max(1.0, best)


LOADS: dict[str, dict[str, Any]] = {
    "none": {},
    "cap": {"load_cap": 1.1},
    "imbalance": {"imbalance_weight": 0.7},
    "all": {"load_cap": 1.2, "imbalance_weight": 0.3, "load_spread_weight": 2.0, "load_spread_tolerance": 0.002},
}
PLACES: dict[str, dict[str, Any]] = {
    "free": {},
    "pin": {"pins": (Pin(expert=1, gpu=0),)},
    "forbidden": {"forbidden": (Pin(expert=2, gpu=0), Pin(expert=0, gpu=1, layer_id=1))},
}


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    grid=st.sampled_from(sorted(GRIDS)),
    loads=st.sampled_from(sorted(LOADS)),
    places=st.sampled_from(sorted(PLACES)),
    distinct=st.booleans(),
)
def test_optimum_of_chains_with_replicas(seed: int, grid: str, loads: str, places: str, distinct: bool) -> None:
    """Context-coherent: score and bound are the enumerated optimum."""
    (topology, slots), weights = GRIDS[grid], dict(LOADS[loads])
    cap = weights.pop("load_cap", None)
    constraints = Constraints(load_cap=cap, distinct_replicas=distinct, **PLACES[places])
    check(Problem(profile(seed), topology, slots, Objective(**weights), constraints))


@pytest.mark.parametrize("seed", [46, 47])
def test_no_optimum_is_cut_off_where_loads_have_large_coefficients(seed: int) -> None:
    """CP-SAT 9.15 with its presolve proves a bound above these optima."""
    (topology, slots), weights = GRIDS["1x2"], dict(LOADS["all"])
    constraints = Constraints(load_cap=weights.pop("load_cap"), **PLACES["forbidden"])
    check(Problem(profile(seed), topology, slots, Objective(**weights), constraints))


@pytest.mark.parametrize(("grid", "policy"), [("1x2", "same_gpu"), ("two_nodes", "same_node")])
def test_variance_by_homes_is_proven_too(grid: str, policy: ReplicaPolicy) -> None:
    """Homes drawn per sequence sway the loads of replicas: a cap on a quantile is exact at the optimum."""
    topology, slots = GRIDS[grid]
    objective = dispatch(dedup="none", replica_policy=policy, ownership="sequence")
    problem = Problem(profile(3, layers=1), topology, slots, objective, Constraints(load_cap=1.05, load_quantile=0.9))
    assert problem.home_moments is not None
    check(problem)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    grid=st.sampled_from(sorted(GRIDS)),
    loads=st.sampled_from(sorted(LOADS)),
    dedup=st.sampled_from(get_args(Dedup)),
    policy=st.sampled_from(get_args(ReplicaPolicy)),
    ownership=st.sampled_from(get_args(Ownership)),
    top_k=st.integers(1, 2),
)
def test_optimum_of_dispatch_with_replicas(
    seed: int, grid: str, loads: str, dedup: Dedup, policy: ReplicaPolicy, ownership: Ownership, top_k: int
) -> None:
    """Dispatch, under every deduplication, replica policy and ownership: score and bound are the enumerated optimum."""
    (topology, slots), weights = GRIDS[grid], dict(LOADS[loads])
    cap = weights.pop("load_cap", None)
    objective = Objective(execution="dispatch", dedup=dedup, replica_policy=policy, ownership=ownership, **weights)
    check(Problem(profile(seed, layers=1, top_k=top_k), topology, slots, objective, Constraints(load_cap=cap)))


@pytest.mark.parametrize("seed", range(3))
def test_groups_stay_on_one_node(seed: int) -> None:
    """Members of a group share a node, replicas included, and the plan is the best of those."""
    constraints = Constraints(groups=(Group(experts=(0, 2)),), load_cap=1.3)
    check(Problem(profile(seed), Topology.parse("2x1"), 2, constraints=constraints))


@pytest.mark.parametrize("quantile", [None, 0.9])
def test_standard_errors_of_loads_are_proven_too(quantile: float | None) -> None:
    """Tangents make the spread, and a cap on a quantile of the loads, exact at the optimum."""
    constraints = Constraints(load_cap=1.05, load_quantile=quantile)
    check(Problem(profile(5), Topology.parse("1x2"), 2, constraints=constraints))


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), work=st.sampled_from([100, 2000, 20_000]), dedup=st.sampled_from(get_args(Dedup)))
def test_bound_is_safe_when_stopped_early(seed: int, work: int, dedup: Dedup) -> None:
    """Whatever the limit, the bound is not above the optimum, nor the score below it."""
    objective = Objective(execution="dispatch", dedup=dedup)
    for problem in (
        Problem(profile(seed, experts=4, layers=1, top_k=2), Topology.parse("1x2"), 3, objective),
        Problem(profile(seed), Topology.parse("1x2"), 2, constraints=Constraints(load_cap=1.1)),
    ):
        best, found = least(problem), solve(problem, "cp_sat", limits=Limits(work=work)).plan
        assert found.score is not None
        assert found.score >= best - TOLERANCE
        assert found.bound is None or found.bound <= best + 1e-12


def random_table(problem: Problem, seed: int) -> npt.NDArray[np.int32]:
    """Return a valid map with replicas in all slots of GPUs with as many."""
    rng = np.random.default_rng(seed)
    while True:
        table = np.stack([rng.permutation(np.arange(problem.num_slots) % problem.num_experts) for _ in range(3)])
        if not broken_constraints(problem, table).found:
            return table.astype(np.int32)


@pytest.mark.parametrize("seed", range(5))
def test_symmetry_keeps_one_plan_of_each_class(seed: int) -> None:
    """A map renamed as the model wants it is a solution of the model, with the map's own score."""
    from ortools.sat.python import cp_model

    problem = Problem(profile(seed, layers=3, experts=4), Topology.parse("2x2"), 2)
    patterns = ReplicaPatterns.of(problem)
    table = random_table(problem, seed)
    replicas = replicas_on_gpu(table, 4, 4)
    model = PlacementModel(problem, patterns, range(3), replicas)
    number = model.canonical(replicas)
    for (row, expert), ways in model.has.items():
        model.cp.add(ways[int(number[row, expert])] == 1)
    solver = cp_model.CpSolver()
    solver.parameters.presolve_inclusion_work_limit = 0
    assert solver.solve(model.cp) == cp_model.OPTIMAL
    assert model.bound(solver.objective_value) == pytest.approx(score(problem, table).total, abs=TOLERANCE)
    assert score(problem, model.table(solver.boolean_value)).total == pytest.approx(score(problem, table).total)


def test_interchangeable_gpus() -> None:
    """Equal GPUs of a node, and equal nodes, may be renamed; where tokens have homes of their own none may."""
    counts = {"context_coherent": 8, "dispatch": 1}
    for execution, expected in counts.items():
        objective = Objective(execution=execution)  # type: ignore[arg-type]  # both are executions
        assert len(interchangeable(Problem(profile(experts=4), Topology.parse("2x2"), objective=objective))) == expected


def test_patterns_are_sets_of_gpus_or_multisets() -> None:
    """One spare slot: single replicas and pairs; two on one GPU only where that is allowed."""
    topology = Topology.of((3,), slots=[2, 1, 1])
    for distinct, expected in ((True, 6), (False, 7)):
        problem = Problem(profile(), topology, 2, constraints=Constraints(distinct_replicas=distinct))
        assert len(ReplicaPatterns.of(problem).replicas) == expected
        assert count_patterns(problem) >= expected


@pytest.mark.parametrize("execution", ["context_coherent", "dispatch"])
@pytest.mark.parametrize("slots", [2, 3])
def test_count_is_at_least_the_booleans_of_the_model(execution: Any, slots: int) -> None:
    """The size that `supports` goes by covers every boolean of traffic and places."""
    dedup: Any = "node" if execution == "dispatch" else None
    objective = Objective(execution=execution, dedup=dedup, imbalance_weight=0.0, load_spread_weight=0.0)
    problem = Problem(profile(experts=4, top_k=2), Topology.parse("2x1"), slots, objective)
    patterns = ReplicaPatterns.of(problem)
    around = replicas_on_gpu(solve(problem, "contiguous").plan.physical_to_logical_map, 4, 2)
    model = PlacementModel(problem, patterns, range(2), around)
    assert len(model.cp.proto.variables) <= count_booleans(problem, patterns, 2, 10**9)


def test_large_models_are_refused_with_their_size() -> None:
    """The reason names the booleans; a window of layers needs fewer."""
    problem = Problem(profile(layers=6, experts=8), Topology.parse("1x4"))
    reason = CpSat(max_booleans=500).supports(problem)
    assert reason is not None
    assert "max_booleans = 500" in reason
    assert CpSat(max_booleans=500, neighbourhood_layers=1).supports(problem) is None
    huge = Problem(profile(experts=64), Topology.parse("8x8"), 8)
    assert CpSat().supports(huge) is not None


def test_neighbourhoods_improve_a_start_and_prove_nothing() -> None:
    """Windows of two layers better a random plan; the bound is the instant one."""
    problem = Problem(
        profile(layers=5, experts=6, tokens=300), Topology.parse("1x3"), constraints=Constraints(load_cap=1.4)
    )
    start = solve(problem, "random").plan
    found = solve(problem, CpSat(neighbourhood_layers=2), start=start)
    assert start.score is not None
    assert found.plan.score is not None
    assert found.plan.score < start.score
    assert found.plan.bound == start.bound
    again = solve(problem, CpSat(neighbourhood_layers=2), start=found.plan)
    assert again.plan.score == found.plan.score


def test_neighbourhoods_with_replicas_and_errors_of_loads() -> None:
    """A window sees what the other layers add to the mean spread: on two of two layers it finds the optimum."""
    objective = Objective(load_spread_weight=2.0, load_spread_tolerance=0.01)
    problem = Problem(profile(3), Topology.parse("1x2"), 2, objective, Constraints(load_cap=1.1))
    whole = solve(problem, "cp_sat").plan
    found = solve(problem, CpSat(neighbourhood_layers=1), start=whole).plan
    assert found.score == whole.score


def hard() -> Problem:
    """Return a problem that takes long to prove."""
    return Problem(profile(layers=4, experts=16, tokens=600, top_k=2), Topology.parse("2x2"))


def test_work_limit_ends_the_search() -> None:
    """The limit is named, and the plan is the same twice."""
    one, two = (solve(hard(), "cp_sat", limits=Limits(work=200_000), seed=4) for _ in range(2))
    assert one.termination.limit == "work"
    assert one.termination.deterministic
    assert np.array_equal(one.plan.physical_to_logical_map, two.plan.physical_to_logical_map)
    assert one.plan.bound == two.plan.bound


def test_observers_failure_ends_the_search() -> None:
    """An exception in an observer comes out of `solve`, although the library's thread called it."""
    problem = Problem(profile(layers=3, experts=6, tokens=300), Topology.parse("1x3"))

    def observe(event: Event) -> None:
        if threading.current_thread() is not threading.main_thread() and event.kind == "incumbent":
            raise KeyError("observer")

    with pytest.raises(KeyError, match="observer"):
        solve(problem, "cp_sat", observe=observe)


def test_cancelling_is_prompt() -> None:
    """The library stops soon after the interrupt, and the plan in hand is kept."""
    interrupt = threading.Event()
    timer = threading.Timer(0.5, interrupt.set)
    timer.start()
    begin = time.monotonic()
    found = solve(hard(), "cp_sat", limits=Limits(time_s=60), interrupt=interrupt)
    timer.join()
    assert time.monotonic() - begin < 20
    assert found.termination.limit == "cancelled"


def test_options_are_checked() -> None:
    """Both options at once."""
    with pytest.raises(InputError) as caught:
        CpSat(max_booleans=0, neighbourhood_layers=-1)
    assert len(caught.value.violations) == 2
