"""Sets of experts per GPU: their costs, proofs by enumeration, bounds at any moment, what is refused."""

import itertools
from functools import cache
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, Group, Objective, Pin, Problem, Topology
from placement.cost.feasibility import broken_constraints
from placement.cost.score import score
from solvers import Limits, solve
from solvers.methods.set_partition import gpu_sets
from solvers.methods.set_partition import solver as set_partition
from solvers.methods.set_partition.gpu_sets import GpuSets
from solvers.methods.set_partition.kernels import members_of, number_of, sum_subsets
from solvers.methods.set_partition.solver import SetPartition
from tests.builders.traces import planted_trace, profile_of
from traces import InputError, Profile

GRIDS = {
    "flat": Topology.parse("1x3"),
    "nodes": Topology.parse("2+1"),
    "directed": Topology.of((1, 1, 1), rank_cost_matrix=[[0, 1, 3], [2, 0, 1], [1, 2, 0]]),
    "speeds": Topology.of((3,), speed=[1.0, 1.5, 1.0]),
}
DISPATCH = Objective(execution="dispatch")
NO_SPREAD = Objective(
    execution="dispatch",
    replica_policy="same_node",
    load_spread_weight=0.0,
    imbalance_weight=0.0,
    load_spread_tolerance=0.0088,
)
FLAT = Topology.parse("1x3")


def profile(seed: int = 0, layers: int = 1, experts: int = 6, top_k: int = 3, tokens: int = 150) -> Profile:
    """Tokens that use a team of experts more often than others, some experts hot, in windows of 16."""
    trace = planted_trace(
        [seed, layers, experts, top_k], tokens, layers, experts, top_k, teams=3, pull=1.5, decline=0.2, sequence=10
    )
    return profile_of(trace, window_tokens=16)


def rows(problem: Problem) -> list[np.ndarray]:
    """Return every way to share the experts out to the GPUs, evenly."""
    E, size = problem.num_experts, problem.slots_per_gpu

    def share(left: tuple[int, ...]) -> list[list[int]]:
        if not left:
            return [[]]
        return [
            [*chosen, *rest]
            for chosen in itertools.combinations(left, size)
            for rest in share(tuple(e for e in left if e not in chosen))
        ]

    return [np.array(row) for row in share(tuple(range(E)))]


@cache
def least(problem: Problem) -> float:
    """Return the least score over all plans, by enumeration."""
    best = np.inf
    for chosen in itertools.product(rows(problem), repeat=problem.num_layers):
        table = np.array(chosen)
        total = score(problem, table).total
        if total < best and not broken_constraints(problem, table).found:
            best = total
    return best


@given(experts=st.integers(1, 9), data=st.data())
def test_sets_have_places_in_lexicographic_order(experts: int, data: st.DataObject) -> None:
    """Numbers and members are inverse to each other, in the order of `itertools.combinations`; sums follow it."""
    size = data.draw(st.integers(1, experts))
    every = np.array(list(itertools.combinations(range(experts), size)))
    choose = np.array([[comb(e, k) for k in range(size + 1)] for e in range(experts + 1)])
    values = np.random.default_rng(experts).random(experts)
    total = np.zeros(len(every))
    sum_subsets(values, size, total)
    assert (number_of(every, choose) == np.arange(len(every))).all()
    assert (members_of(np.arange(len(every)), choose) == every).all()
    assert total == pytest.approx(values[every].sum(axis=1))


@settings(max_examples=20)
@given(seed=st.integers(0, 100), grid=st.sampled_from(sorted(GRIDS)), dtype=st.sampled_from([np.float64, np.float32]))
def test_costs_of_a_plans_sets_add_up_to_its_score(seed: int, grid: str, dtype: type) -> None:
    """For any plan of one layer: messages, excess above the cap and, with equal spreads at least, the score."""
    problem = Problem(
        profile(seed), GRIDS[grid], objective=DISPATCH, constraints=Constraints(load_cap=1.05, load_quantile=0.8)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_sets, "EXACT", 10**9 if dtype is np.float64 else 0)
        sets = GpuSets(problem, 0)
    cost = sets.cost(0.0)
    row = np.random.default_rng(seed).permutation(6)
    total = cost[sets.number(row.reshape(3, 2)), np.arange(3)].sum()
    assert cost.dtype == dtype
    assert total == pytest.approx(score(problem, row[None]).total, rel=1e-12 if dtype is np.float64 else 1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    grid=st.sampled_from(sorted(GRIDS)),
    cap=st.sampled_from([None, 1.02, 1.2]),
    quantile=st.sampled_from([None, 0.9]),
    imbalance=st.sampled_from([0.0, 2.0]),
)
def test_optimum_is_that_of_enumeration(
    seed: int, grid: str, cap: float | None, quantile: float | None, imbalance: float
) -> None:
    """Any hop costs and speeds, with and without loads: value, bound and proof agree with brute force."""
    objective = Objective(
        execution="dispatch",
        replica_policy="same_node",
        imbalance_weight=imbalance,
        load_spread_weight=0.0,
        load_spread_tolerance=0.0088,
    )
    constraints = Constraints(load_cap=cap, load_quantile=cap and quantile)
    problem = Problem(profile(seed, layers=1), GRIDS[grid], objective=objective, constraints=constraints)
    found = solve(problem, "set_partition")
    assert found.plan.score == pytest.approx(least(problem), abs=1e-12)
    assert found.plan.gap == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("tolerance", [0.0, 0.008, 0.012, 1.0])
def test_spread_is_bounded_by_prices(tolerance: float) -> None:
    """The spread counts on the mean over layers: the bound stays below the optimum, and the plan is close to it."""
    objective = Objective(
        execution="dispatch",
        replica_policy="same_node",
        load_spread_weight=2.0,
        load_spread_tolerance=tolerance,
        imbalance_weight=0.0,
    )
    problem = Problem(profile(layers=2), FLAT, objective=objective, constraints=Constraints(load_cap=1.2))
    found, best = solve(problem, "set_partition").plan, least(problem)
    assert found.score is not None
    assert found.bound is not None
    assert found.bound <= best + 1e-12
    assert found.score >= best - 1e-12
    assert found.gap == pytest.approx(0.0, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), tolerance=st.floats(0.0, 0.03), imbalance=st.sampled_from([0.0, 1.0]))
def test_never_above_the_optimum_at_any_price(seed: int, tolerance: float, imbalance: float) -> None:
    """Every bound that is told while prices rise and fall holds, with a spread that binds on some layers only."""
    objective = Objective(
        execution="dispatch",
        replica_policy="same_node",
        imbalance_weight=imbalance,
        load_spread_weight=10.0,
        load_spread_tolerance=tolerance,
    )
    problem = Problem(
        profile(seed, layers=3, experts=4, top_k=2, tokens=90),
        Topology.parse("1x2"),
        objective=objective,
        constraints=Constraints(load_cap=1.3),
    )
    best = least(problem)
    found = solve(problem, "set_partition")
    assert found.plan.score is not None
    assert found.plan.score >= best - 1e-12
    assert max(step.bound for step in found.history if step.bound is not None) <= best + 1e-12


@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(pins=(Pin(expert=0, gpu=1),)),
        Constraints(forbidden=(Pin(expert=2, gpu=0), Pin(expert=1, gpu=2)), load_cap=1.1),
    ],
)
def test_constraints_are_part_of_the_optimum(constraints: Constraints) -> None:
    """Pins and exclusions are kept, and the plan is the best of those that keep them."""
    problem = Problem(profile(), FLAT, objective=NO_SPREAD, constraints=constraints)
    found = solve(problem, "set_partition")
    assert found.plan.score == pytest.approx(least(problem), abs=1e-12)
    assert found.termination.reason in {"optimal", "infeasible"}  # a missed cap is told whether or not it is proven
    assert found.plan.gap == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("work", [1, 50, 300, 3_000, 30_000])
def test_stopped_early_it_is_safe(work: int) -> None:
    """Whenever the work ends, the bound is not above the optimum, and there is a plan."""
    problem = Problem(profile(layers=2), FLAT, objective=DISPATCH, constraints=Constraints(load_cap=1.1))
    plan = solve(problem, "set_partition", limits=Limits(work=work)).plan
    assert plan.bound is not None
    assert plan.bound <= least(problem) + 1e-12


@pytest.mark.parametrize("excess", [1.0, 1e9])
def test_a_plan_that_costs_nothing_is_found(excess: float) -> None:
    """Where only load above the cap costs, the bound is 0 from the start, and so is the cost of the plan in the end."""
    objective = Objective(
        execution="dispatch",
        replica_policy="same_node",
        traffic_weight=0.0,
        load_excess_weight=excess,
        load_spread_weight=0,
        imbalance_weight=0.0,
        load_spread_tolerance=0.0088,
    )
    problem = Problem(profile(layers=2), FLAT, objective=objective, constraints=Constraints(load_cap=1.4))
    assert least(problem) == 0.0
    assert solve(problem, "set_partition").plan.score == 0.0


def test_layers_that_are_not_kept_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all layers take too much memory, they are decided one by one, in single precision."""
    problem = Problem(profile(layers=3), FLAT, objective=NO_SPREAD, constraints=Constraints(load_cap=1.1))
    usual = solve(problem, "set_partition").plan
    monkeypatch.setattr(set_partition, "KEPT", 0)
    monkeypatch.setattr(gpu_sets, "EXACT", 0)
    frugal = solve(problem, "set_partition").plan
    assert frugal.score == pytest.approx(usual.score)
    assert frugal.bound == pytest.approx(usual.bound, rel=1e-5)  # the margin for single precision
    assert frugal.bound is not None
    assert usual.score is not None
    assert frugal.bound <= usual.score


def test_many_sets_are_decided_by_their_reduced_costs() -> None:
    """Twelve experts on three GPUs: a proof over 495 sets that column generation has seen few of."""
    problem = Problem(
        profile(layers=2, experts=12, top_k=4, tokens=600),
        FLAT,
        objective=DISPATCH,
        constraints=Constraints(load_cap=1.05),
    )
    found = solve(problem, "set_partition")
    other = solve(problem, "annealing", limits=Limits(work=200_000)).plan
    assert found.plan.gap == pytest.approx(0.0, abs=1e-6)
    assert found.plan.score is not None
    assert other.score is not None
    assert found.plan.score <= other.score + 1e-12


def test_auto_proves_fan_out() -> None:
    """The portfolio turns to sets where a layer has few of them."""
    problem = Problem(
        profile(layers=3, experts=12, top_k=4),
        Topology.parse("1x4"),
        objective=NO_SPREAD,
        constraints=Constraints(load_cap=1.3),
    )
    found = solve(problem, limits=Limits(time_s=20))
    assert found.termination.reason == "optimal"
    assert found.plan.gap == pytest.approx(0.0, abs=1e-9)


def test_other_problems_are_refused_with_the_reason() -> None:
    """Chains, replicas, groups, messages per node and too many sets are told, not solved wrongly."""
    nodes, groups = Topology.parse("3x1"), Constraints(groups=(Group(experts=(0, 3)),))
    cases = [
        (Problem(profile(), FLAT), "one message per GPU"),
        (Problem(profile(), FLAT, objective=Objective(execution="dispatch", dedup="none")), "dedup"),
        (Problem(profile(), nodes, objective=Objective(execution="dispatch", dedup="node")), "node"),
        (Problem(profile(), FLAT, 3, DISPATCH), "one replica of each expert"),
        (Problem(profile(), Topology.of((3,), slots=[2, 2, 2]), 3, DISPATCH), "no empty slots"),
        (Problem(profile(experts=1100, tokens=20), Topology.parse("1x2"), 0, DISPATCH), "more than 1e300"),
        (Problem(profile(), FLAT, objective=DISPATCH, constraints=groups), "no groups"),
        (Problem(profile(experts=20), Topology.parse("1x2"), objective=DISPATCH), "max_sets"),
    ]
    for problem, reason in cases:
        with pytest.raises(InputError, match=reason):
            solve(problem, SetPartition(max_sets=100_000))


def test_options_are_checked() -> None:
    """A layer without sets is no limit."""
    with pytest.raises(InputError, match="max_sets"):
        SetPartition(max_sets=0)
