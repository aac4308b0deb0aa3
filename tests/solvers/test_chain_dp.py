"""The dynamic programme over arrangements: proofs, symmetry, limits."""

import itertools
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, Group, Objective, Pin, Problem, Topology
from placement.cost.feasibility import broken_constraints
from placement.cost.score import score
from solvers import Limits, solve
from solvers.arrange.conform import pack
from solvers.arrange.symmetry import Arrangements, count_arrangements
from solvers.methods.chain_dp.solver import ChainDp
from tests.builders.traces import profile_of, staying_trace
from traces import Profile

GRIDS = {
    "flat": Topology.parse("1x2"),
    "two_tiers": Topology.parse("2x2"),
    "uneven_nodes": Topology.parse("2+1"),
    "directed": Topology.of((1, 1, 1), rank_cost_matrix=[[0, 1, 3], [2, 0, 1], [1, 2, 0]]),
    "speeds": Topology.of((2,), speed=[1.0, 1.5]),
    "slots": Topology.of((3,), slots=[1, 2, 2]),
}


def profile(seed: int = 0, layers: int = 3, experts: int = 4) -> Profile:
    """Tokens that like to stay with the experts of their kind, in windows of 16."""
    return profile_of(staying_trace(seed, 200, layers, experts, 0.5), window_tokens=16)


def least(problem: Problem) -> float:
    """Least score over all plans with one replica of each expert: every layer enumerated, no symmetry used."""
    every = [
        np.array(gpu)
        for gpu in itertools.product(range(problem.num_gpus), repeat=problem.num_experts)
        if (np.bincount(gpu, minlength=problem.num_gpus) <= problem.capacity).all()
    ]
    experts = np.arange(problem.num_experts)[None]
    rows = [pack(experts, gpu[None], problem.num_gpus, problem.slots_per_gpu)[0] for gpu in every]
    return min(
        score(problem, np.array(table)).total
        for table in itertools.product(rows, repeat=problem.num_layers)
        if not broken_constraints(problem, np.array(table)).found
    )


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    grid=st.sampled_from(sorted(GRIDS)),
    cap=st.sampled_from([None, 1.1]),
    quantile=st.sampled_from([None, 0.95]),
    imbalance=st.sampled_from([0.0, 0.3]),
)
def test_optimum_is_that_of_enumeration(
    seed: int, grid: str, cap: float | None, quantile: float | None, imbalance: float
) -> None:
    """Any hop costs, speeds and slots, with and without loads: value, bound and proof agree with brute force."""
    topology = GRIDS[grid]
    problem = Problem(
        profile(seed, layers=2),
        topology,
        objective=Objective(imbalance_weight=imbalance, load_spread_weight=0.0),
        constraints=Constraints(load_cap=cap, load_quantile=cap and quantile),
    )
    found = solve(problem, "chain_dp").plan
    assert found.score == pytest.approx(least(problem), abs=1e-12)
    if problem.num_slots == problem.num_experts or (cap is None and not imbalance):
        assert found.gap == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("tolerance", [0.0, 0.03, 1.0])
def test_spread_is_bounded_by_prices(tolerance: float) -> None:
    """The spread counts on the mean over layers: the bound stays below the optimum, and the plan is close to it."""
    objective = Objective(load_spread_weight=2.0, load_spread_tolerance=tolerance)
    problem = Problem(profile(layers=3), GRIDS["flat"], objective=objective, constraints=Constraints(load_cap=1.2))
    found, best = solve(problem, "chain_dp").plan, least(problem)
    assert found.score is not None
    assert found.bound is not None
    assert found.bound <= best + 1e-12
    assert found.score >= best - 1e-12
    assert found.gap == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(pins=(Pin(expert=0, gpu=1),)),
        Constraints(forbidden=(Pin(expert=2, gpu=0, layer_id=1), Pin(expert=1, gpu=3))),
        Constraints(groups=(Group(experts=(0, 3)),)),
    ],
)
def test_constraints_are_part_of_the_optimum(constraints: Constraints) -> None:
    """Pins, exclusions and groups are kept, and the plan is the best of those that keep them."""
    problem = Problem(profile(layers=2), GRIDS["two_tiers"], constraints=constraints)
    found = solve(problem, "chain_dp")
    assert found.plan.score == pytest.approx(least(problem), abs=1e-12)
    assert found.termination.reason == "optimal"


def test_arrangements_are_counted_and_fall_into_classes() -> None:
    """Count, enumeration and classes agree; a renamed representative is its member."""
    problem = Problem(profile(experts=8), Topology.parse("2x2"))
    every = Arrangements.of(problem)
    assert count_arrangements(problem) == len(every.gpu) == math.factorial(8) // 2**4
    assert len(every.names) == 8  # swaps inside each node, and of the nodes
    assert len(every.representative) == len(every.gpu) // 8
    base = every.gpu[every.representative[every.class_of]]
    renamed = np.take_along_axis(every.names[every.renamed_by], base.astype(int), axis=1)
    assert np.array_equal(renamed, every.gpu)


def test_count_with_more_room_than_experts() -> None:
    """Slots may stay empty: four experts on two GPUs with room for three each leave out the two lopsided ways."""
    problem = Problem(profile(), GRIDS["flat"], 3)
    assert count_arrangements(problem) == len(Arrangements.of(problem).gpu) == 2**4 - 2


def test_too_large_a_problem_is_refused_with_its_size() -> None:
    """The reason names the number of arrangements."""
    reason = ChainDp().supports(Problem(profile(experts=16), Topology.parse("1x4")))
    assert reason is not None
    assert "6.31e+07 arrangements" in reason


def test_time_limit_keeps_the_plan_in_order() -> None:
    """A clock that runs out in the middle leaves the incumbent."""
    problem = Problem(profile(experts=14, layers=8), Topology.parse("1x2"))
    solve(Problem(profile(), GRIDS["flat"]), "chain_dp")  # compiles
    begin = time.monotonic()
    found = solve(problem, ChainDp(max_steps=10**15), limits=Limits(time_s=0.3))
    assert time.monotonic() - begin < 5
    assert found.termination.reason in ("feasible", "optimal")


def test_auto_proves_small_problems() -> None:
    """The portfolio ends with a proof where the chain is small, long before its limit."""
    found = solve(Problem(profile(experts=8, layers=6), Topology.parse("2x2")), "auto", limits=Limits(time_s=60))
    assert found.termination.reason == "optimal"
    assert found.plan.provenance["found_by"] != ""
    assert found.termination.limit is None


def test_options_are_checked() -> None:
    """No steps at all make no sense."""
    options: dict[str, Any] = {"max_steps": 0}
    with pytest.raises(ValueError, match="max_steps"):
        ChainDp(**options)
