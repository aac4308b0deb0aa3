"""The bound of the spread: never above a plan's, whatever its loads and replicas."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, Objective, Problem, Topology, score
from placement.cost.bounds import load_floor
from solvers import Limits
from solvers.bounds import raise_bound
from solvers.bounds.load_spread import LayerSpread
from solvers.bounds.load_variance import LeastVariance, LoadVariance, least_own
from solvers.bounds.loads import spread_counts
from solvers.searching.search import Search
from tests.builders.traces import planted_trace, profile_of


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    gpus=st.integers(2, 4),
    spare=st.integers(0, 4),
    windows=st.integers(1, 4),
    steps=st.integers(0, 12),
)
def test_no_shares_vary_less(seed: int, gpus: int, spare: int, windows: int, steps: int) -> None:
    """Any shares of replicas, even or not, on GPUs with any loads, and experts without any load."""
    rng = np.random.default_rng(seed)
    experts = int(rng.integers(2, 7))
    shares = rng.random(experts) ** 3
    shares[rng.random(experts) < 0.2] = 0.0
    shares[0] += 0.1
    shares /= shares.sum()
    deviations = rng.normal(size=(experts, windows)) * shares[:, None]
    variance = LoadVariance(deviations, shares, gpus, experts + spare)
    variance.advance(steps)
    proven = variance.bound()
    for _ in range(20):
        replicas = np.ones(experts, int)
        np.add.at(replicas, rng.integers(0, experts, spare), 1)
        served = np.zeros((experts, gpus))
        for e, count in enumerate(replicas):
            parts = rng.dirichlet(np.full(count, rng.choice([0.3, 100.0])))
            np.add.at(served[e], rng.integers(0, gpus, count), parts)
        load = gpus * shares @ served
        found = float(((gpus * served.T @ deviations) ** 2).sum(axis=1).mean())
        assert proven.even - proven.per_imbalance * (load.max() - 1) <= found + 1e-9


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), experts=st.integers(1, 4), spare=st.integers(0, 4))
def test_replicas_are_shared_out_at_best(seed: int, experts: int, spare: int) -> None:
    """The least sum over all numbers of replicas, or a little less, as by a price per slot; and the numbers fit."""
    alone = np.random.default_rng(seed).integers(0, 5, experts).astype(np.float64) ** 2
    ways = itertools.product(range(1, spare + 2), repeat=experts)
    best = min(float((alone / np.array(way)).sum()) for way in ways if sum(way) <= experts + spare)
    least, number = least_own(alone, experts + spare)
    assert least <= best + 1e-9
    assert number.sum() <= experts + spare
    if spare == 0 or (experts == 1 and alone[0]):
        assert least == pytest.approx(best)


def test_it_proves_most_of_what_experts_alone_vary() -> None:
    """Experts that vary independently: a GPU varies as its experts do, so little is lost."""
    rng = np.random.default_rng(0)
    shares = np.full(32, 1 / 32)
    deviations = np.eye(32) * rng.uniform(0.9, 1.1, 32) / 320
    variance = LoadVariance(deviations, shares, 8, 40)
    variance.advance(40)
    own = np.sort(8 * (deviations**2).sum(axis=1))
    best = float(own[:24].sum() + own[24:].sum() / 2)
    assert 0.95 * best <= variance.bound().even <= best + 1e-12


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Experts of a team peak together; 8 GPUs, loads and spread count, nothing is redundant."""
    trace = planted_trace([1, 16], 6000, 2, 16, 2, teams=4, pull=2.0, decline=0.0, sequence=100, sources=2)
    objective = Objective(execution="dispatch", dedup="gpu")
    return Problem(profile_of(trace), Topology.parse("1x8"), objective=objective)


def raised(problem: Problem) -> float:
    """Return the bound after some work."""
    search = Search(problem, Limits(work=30_000_000))
    raise_bound(problem, search)
    bound = search.outcome().bound
    assert bound is not None
    return bound


@pytest.mark.parametrize("slots", [2, 3])
def test_the_spread_raises_the_bound(problem: Problem, slots: int) -> None:
    """Above the bound without it, and below what random plans have, by the whole score."""
    problem = replace(problem, slots_per_gpu=slots)
    assert spread_counts(problem)
    without = replace(problem, objective=replace(problem.objective, load_spread_weight=0.0))
    bound, rng = raised(problem), np.random.default_rng(0)
    assert bound > raised(without) + 0.1
    for _ in range(20):
        rest = rng.integers(0, 16, 8 * slots - 16)
        assert bound <= score(problem, np.array([rng.permutation([*range(16), *rest])] * 2)).total


def test_a_spread_within_the_tolerance_costs_nothing(problem: Problem) -> None:
    """With a tolerance above what experts alone vary, it has no part."""
    tolerant = replace(problem, objective=replace(problem.objective, load_spread_tolerance=0.2))
    assert not spread_counts(tolerant)
    assert raised(tolerant) >= load_floor(tolerant)


def test_cost_is_least_at_a_corner(problem: Problem) -> None:
    """Against a fine grid of imbalances, with and without a cap."""
    for cap, weight in ((None, 0.5), (None, 30.0), (1.3, 0.0), (1.3, 2.0)):
        objective = replace(problem.objective, imbalance_weight=weight, load_excess_weight=3.0)
        spread = LayerSpread(replace(problem, objective=objective, constraints=Constraints(load_cap=cap)), 0)
        for proven in (LeastVariance(even=0.01, per_imbalance=0.02), LeastVariance(even=0.01, per_imbalance=0.0)):
            grid = spread._least + np.linspace(0, 1, 10_001)
            least = min(spread._cost_at(float(imbalance), proven) for imbalance in grid)
            assert spread.cost(proven) == pytest.approx(least, abs=5e-3)
            assert spread.cost(proven) <= least + 1e-12
