"""Budgets of copies: never exceeded, shared out to where copies save most."""

import itertools
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, Objective, Pin, Problem, Topology
from placement.feasibility import broken_constraints
from solvers import Limits, solve
from solvers.copy_budget import copy_levels, share_out
from traces import InputError, Profile, Trace


def problem(budget: int | None, **constraints: object) -> Problem:
    """Two layers of 8 experts on 4 GPUs of 3 slots, one layer with a hot expert."""
    rng = np.random.default_rng(3)
    ids = rng.random((400, 2, 8)).argsort(axis=2)[:, :, :2]
    ids[:300, 1, 0], ids[:300, 1, 1] = 0, 1 + ids[:300, 1, 1] % 7
    trace = Trace.of(ids, num_experts=8, seq_id=np.arange(400) // 8)
    return Problem(
        Profile.of(trace, workers=1),
        Topology.parse("2x2"),
        3,
        Objective.for_execution("dispatch", "gpu"),
        Constraints(extra_copies=budget, **constraints),  # type: ignore[arg-type]
    )


PLAIN = problem(None)


def extras(problem: Problem, table: npt.NDArray[np.int32]) -> list[int]:
    """Return the copies beyond one of each expert, by layer."""
    return [int(held) - problem.num_experts for held in (table >= 0).sum(axis=1)]


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), budget=st.integers(0, 14))
def test_share_out_of_convex_curves_is_best(seed: int, budget: int) -> None:
    """On convex curves over single steps, no other sharing of the budget costs less."""
    rng = np.random.default_rng(seed)
    savings = -np.sort(-rng.integers(0, 9, (3, 4)), axis=1)
    cost = 50.0 - np.concatenate([np.zeros((3, 1)), savings.cumsum(axis=1)], axis=1)
    given_ = share_out(cost, np.arange(5), budget)
    assert given_.sum() == min(budget, 12)
    ways = [way for way in itertools.product(range(5), repeat=3) if sum(way) <= budget]
    best = min(cost[[0, 1, 2], list(way)].sum() for way in ways)
    assert cost[[0, 1, 2], given_].sum() == best


def test_levels_span_the_room() -> None:
    """Levels rise from none to all."""
    assert copy_levels(0).tolist() == [0]
    assert copy_levels(2).tolist() == [0, 1, 2]
    assert copy_levels(8).tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("budget", [0, 1, 3])
def test_budget_is_kept_and_used(budget: int) -> None:
    """A plan has no more copies than allowed, and at least the one that halves the hot expert's load."""
    limited = problem(budget)
    plan = solve(limited, "annealing", limits=Limits(work=40_000)).plan
    assert min(budget, 1) <= sum(extras(limited, plan.physical_to_logical_map)) <= budget


def test_copies_go_to_the_layer_that_needs_them() -> None:
    """The layer with a hot expert gets more of the budget than the even one."""
    limited = problem(3)
    even, skewed = extras(limited, solve(limited, "annealing", limits=Limits(work=40_000)).plan.physical_to_logical_map)
    assert skewed > even


def test_auto_keeps_the_budget() -> None:
    """Every method of the portfolio that would fill the slots is left out."""
    limited = problem(1)
    assert sum(extras(limited, solve(limited, "auto", limits=Limits(work=20_000)).plan.physical_to_logical_map)) <= 1


def test_more_copies_than_allowed_are_a_broken_constraint() -> None:
    """A full map breaks a smaller budget, and keeps one of just its size."""
    table = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]] * 2)
    assert [v.code for v in broken_constraints(problem(7), table).found] == ["extra_copies_exceeded"]
    assert not broken_constraints(problem(8), table).found


def test_budget_below_the_pins_is_refused() -> None:
    """Pins that ask for a second copy need a budget for it, in each layer."""
    pins = (Pin(expert=0, gpu=0), Pin(expert=0, gpu=2))
    assert not problem(2, pins=pins).is_free
    with pytest.raises(InputError) as error:
        problem(1, pins=pins)
    assert [v.code for v in error.value.violations] == ["extra_copies_range"]
    with pytest.raises(InputError):
        problem(-1)


def test_budget_that_never_binds_changes_nothing() -> None:
    """With room for fewer copies than allowed, the problem is as free as without a budget."""
    assert problem(8).is_free
    assert not replace(problem(None), constraints=Constraints(extra_copies=7)).is_free


@given(size=st.integers(1, 10**12), copies=st.integers(0, 8), rest=st.floats(0, 1, exclude_max=True))
@settings(max_examples=40)
def test_bytes_are_as_many_copies_as_fit(size: int, copies: int, rest: float) -> None:
    """A budget in bytes is the one of the whole copies in it, and may stand beside that number."""
    budget = copies * size + int(rest * size)
    by_bytes = Constraints(extra_bytes=budget)
    limited = replace(PLAIN, constraints=by_bytes, expert_bytes=size)
    assert limited.copy_budget == copies
    assert limited.copies_limited == replace(PLAIN, constraints=Constraints(extra_copies=copies)).copies_limited
    assert replace(limited, constraints=replace(by_bytes, extra_copies=copies)).copy_budget == copies


def test_bytes_give_the_plan_of_the_same_number_of_copies() -> None:
    """The search spends a budget in bytes as one in copies, and the plan records both figures."""
    by_count = problem(3)
    by_bytes = replace(by_count, constraints=Constraints(extra_bytes=399), expert_bytes=100)
    plans = [solve(limited, "annealing", limits=Limits(work=20_000)).plan for limited in (by_count, by_bytes)]
    assert np.array_equal(plans[0].physical_to_logical_map, plans[1].physical_to_logical_map)
    assert plans[1].provenance["constraints"]["extra_bytes"] == 399
    assert plans[1].provenance["expert_bytes"] == 100
    full = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]] * 2)
    assert [v.pointer for v in broken_constraints(by_bytes, full).found] == ["/constraints/extra_bytes"]
