"""Layer sweeps by linear assignment."""

import itertools

import numpy as np
import pytest

from placement import Constraints, Pin, Problem, Topology, score
from placement.cost.feasibility import broken_constraints
from solvers import Limits, Search, solve
from solvers.arrange.conform import conform
from solvers.methods.assignment.solver import Assignment
from tests.builders.problems import dispatch, problem_of
from tests.builders.traces import staying_trace
from traces import InputError

# Three layers of eight experts that follow each other seven times in ten.
CHAINED = staying_trace(2, 400, 3, 8, 0.7, mixed=True)


def test_no_single_layer_can_be_improved() -> None:
    """At the end no swap of two experts of a layer lowers the score."""
    given = problem_of(CHAINED, "1x4")
    plan = solve(given, Assignment(restarts=1), limits=Limits(work=10**6)).plan
    assert plan.score is not None
    for layer, (a, b) in itertools.product(range(3), itertools.combinations(range(8), 2)):
        table = plan.physical_to_logical_map.copy()
        table[layer, [a, b]] = table[layer, [b, a]]
        assert score(given, table).total >= plan.score - 1e-12


def test_more_restarts_are_never_worse() -> None:
    """The first runs are the same, so further ones can only help."""
    given = problem_of(CHAINED, "1x4")
    scores = [solve(given, Assignment(restarts=count), limits=Limits(work=10**6)).plan.score for count in (1, 4, 12)]
    assert scores == sorted(scores, key=lambda value: -(value or 0.0))


def test_prices_bring_the_load_under_the_cap() -> None:
    """With a cap the largest load falls below that of the plan made without it."""
    free = problem_of(CHAINED, "1x2")
    capped = problem_of(CHAINED, "1x2", constraints=Constraints(load_cap=1.05))
    without = solve(free, "assignment", limits=Limits(work=10**6)).plan.physical_to_logical_map
    priced = solve(capped, "assignment", limits=Limits(work=10**6)).score
    assert priced.max_load.max() <= 1.05 + 1e-9
    assert priced.total <= score(capped, without).total


def test_dispatch_without_dedup_is_solved_exactly() -> None:
    """Independent layers, one assignment each: proven optimal."""
    given = Problem(
        problem_of(CHAINED, "1x4").profile,
        Topology.of((2, 1), rank_cost_matrix=np.array([[0, 0.1, 1], [0.1, 0, 1], [1, 1, 0]]), slots=[3, 3, 2]),
        objective=dispatch(dedup="none"),
    )
    found = solve(given, "assignment", limits=Limits(work=10**6))
    rows = {tuple(row) for row in itertools.permutations([0, 0, 0, 1, 1, 1, 2, 2])}
    by_layer = [score(given, conform(given, np.tile(row, (3, 1)))).traffic_by_layer for row in rows]
    best = np.min(by_layer, axis=0).sum()  # layers are independent
    assert found.termination.reason == "optimal"
    assert found.plan.score is not None
    assert found.plan.score == pytest.approx(best, abs=1e-12)


def test_pins_and_exclusions_hold() -> None:
    """Pinned and forbidden places are kept through all sweeps."""
    constraints = Constraints(pins=(Pin(expert=0, gpu=3),), forbidden=(Pin(expert=1, gpu=0), Pin(expert=2, gpu=0)))
    given = problem_of(CHAINED, "1x4", constraints=constraints)
    plan = solve(given, "assignment", limits=Limits(work=10**5)).plan
    assert broken_constraints(given, plan.physical_to_logical_map).found == []


def test_an_expert_pinned_twice_is_refused() -> None:
    """Two pins of an expert ask for a replica, which the method does not make."""
    twice = Constraints(pins=(Pin(expert=0, gpu=0), Pin(expert=0, gpu=1)))
    given = Problem(problem_of(CHAINED, "1x4").profile, Topology.of((4,)), 3, constraints=twice)
    assert "several GPUs" in (Assignment().supports(given) or "")


def test_work_bounds_the_layers_placed() -> None:
    """With work for one layer only, the plan in order is still there."""
    given = problem_of(CHAINED, "1x4")
    search = Search(given, Limits(work=8))
    Assignment().run(given, search)
    assert search.best is not None


def test_restarts_must_be_positive() -> None:
    """Zero restarts are an input error."""
    with pytest.raises(InputError, match="restarts"):
        Assignment(restarts=0)
