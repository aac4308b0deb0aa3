"""Budgets of replicas: never exceeded, shared out to where replicas save most."""

import itertools
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, Objective, Pin, Problem, score
from placement.cost.feasibility import broken_constraints
from placement.plan.plan import replicas_on_gpu
from solvers import Limits, solve
from solvers.arrange.replica_budget import add_replicas, replica_levels, share_out
from tests.builders.problems import problem_of
from tests.builders.traces import random_ids
from traces import InputError, Trace
from traces.synthetic import Synthetic


def problem(budget: int | None, **constraints: object) -> Problem:
    """Two layers of 8 experts on 4 GPUs of 3 slots, one layer with a hot expert."""
    rng = np.random.default_rng(3)
    ids = random_ids(rng, 400, 2, 8)
    ids[:300, 1, 0], ids[:300, 1, 1] = 0, 1 + ids[:300, 1, 1] % 7
    trace = Trace.of(ids, num_experts=8, seq_id=np.arange(400) // 8)
    return problem_of(
        trace,
        "2x2",
        3,
        Objective(execution="dispatch", dedup="gpu"),
        Constraints(extra_replicas=budget, **constraints),  # type: ignore[arg-type]
    )


PLAIN = problem(None)


def extras(problem: Problem, table: npt.NDArray[np.int32]) -> list[int]:
    """Return the replicas beyond one of each expert, by layer."""
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


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), budget=st.integers(0, 20))
def test_share_out_of_any_curves_is_best_on_the_levels(seed: int, budget: int) -> None:
    """Also where few replicas save nothing and more of them much: no choice of a level per layer costs less."""
    rng = np.random.default_rng(seed)
    levels, cost = np.array([0, 1, 3, 7]), rng.integers(0, 9, (3, 4)).astype(float)
    given_ = share_out(cost, levels, budget)
    assert given_.sum() == min(budget, 21)
    assert given_.max() <= 7
    ways = [way for way in itertools.product(range(4), repeat=3) if levels[list(way)].sum() <= budget]
    best = min(cost[[0, 1, 2], list(way)].sum() for way in ways)
    reached = np.minimum.accumulate(cost, axis=1)[[0, 1, 2], np.searchsorted(levels, given_, side="right") - 1]
    assert reached.sum() == best


def test_levels_span_the_room_and_surround_an_even_part() -> None:
    """Levels rise from none to all that room and budget allow; half and twice an even part are among them."""
    assert replica_levels(0, 10, 4).tolist() == [0]
    assert replica_levels(8, 0, 4).tolist() == [0]
    assert replica_levels(8, 3, 3).tolist() == [0, 1, 2, 3]
    assert replica_levels(32, 64, 8).tolist() == [0, 4, 8, 16, 32]
    assert replica_levels(8, 36, 6).tolist() == [0, 3, 6, 8]


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), extra=st.integers(0, 16))
def test_added_replicas_keep_what_there_is_and_the_constraints(seed: int, extra: int) -> None:
    """As many as asked for, if there is a place: the GPU has a slot, no replica yet, and is allowed."""
    rows = np.array([[0, 3, 4, -1, 5, 6, 7, -1, -1, 1, 2, -1]] * 2)
    kept, start = rows.copy(), replicas_on_gpu(rows, 8, 4)[1]
    elsewhere = np.random.default_rng(seed).permutation(np.argwhere(start == 0))[:3]
    forbidden = tuple(Pin(expert=int(expert), gpu=int(gpu)) for expert, gpu in elsewhere)
    limited = problem(None, forbidden=forbidden, pins=(Pin(expert=5, gpu=1),))
    row = add_replicas(limited, 1, rows[1], extra)
    held = replicas_on_gpu(row[None], 8, 4)[0]
    assert (rows == kept).all()
    assert (held >= start).all()
    assert (held <= limited.allowed[1]).all()
    assert held.sum() - 8 == min(extra, 4)
    assert held[5].sum() == 1


def test_added_replica_halves_the_largest_load() -> None:
    """It goes to the hottest expert, on the GPU with the least load that has none."""
    skewed = problem(None)
    rows = np.array([0, 1, -1, 2, 3, -1, 4, 5, -1, 6, 7, -1])
    loads = skewed.relative_load[1].reshape(4, 2).sum(axis=1)
    row = add_replicas(skewed, 1, rows, 1)
    assert np.flatnonzero(row != rows).tolist() == [3 * int(loads[1:].argmin() + 1) + 2]
    assert row[row != rows].tolist() == [0]


@pytest.mark.parametrize("budget", [0, 1, 3])
def test_budget_is_kept_and_used(budget: int) -> None:
    """A plan has no more replicas than allowed, and at least the one that halves the hot expert's load."""
    limited = problem(budget)
    plan = solve(limited, "annealing", limits=Limits(work=40_000)).plan
    assert min(budget, 1) <= sum(extras(limited, plan.physical_to_logical_map)) <= budget


def test_replicas_go_to_the_layer_that_needs_them() -> None:
    """The layer with a hot expert gets more of the budget than the even one."""
    limited = problem(3)
    even, skewed = extras(limited, solve(limited, "annealing", limits=Limits(work=40_000)).plan.physical_to_logical_map)
    assert skewed > even


def two_small_layers(budget: int) -> Problem:
    """Four skewed experts on 2 GPUs of 3 slots. The coldest is kept off GPU 1, so that no plan has a mirror image."""
    rng = np.random.default_rng(5)
    ids = (rng.random((300, 2, 4)) ** np.array([1.0, 3.0, 1.5, 2.0])).argsort(axis=2)[:, :, :2]
    trace = Trace.of(ids, num_experts=4, seq_id=np.arange(300) // 6)
    objective = replace(Objective(execution="dispatch", dedup="gpu"), imbalance_weight=1.0, load_spread_weight=1.0)
    limits = Constraints(extra_replicas=budget, forbidden=(Pin(expert=0, gpu=1),))
    return problem_of(trace, "1x2", 3, objective, limits)


@pytest.mark.parametrize("budget", [0, 1, 2, 3])
def test_search_finds_the_best_of_all_small_plans(budget: int) -> None:
    """Every map of two layers of four experts on two GPUs that keeps the budget costs at least as much."""
    limited = two_small_layers(budget)
    rows = []
    for places in itertools.product([[0]], *[([0], [1], [0, 1])] * 3):
        on = [[e for e in range(4) if gpu in places[e]] for gpu in (0, 1)]
        if max(map(len, on)) <= 3:
            rows.append(np.concatenate([np.pad(held, (0, 3 - len(held)), constant_values=-1) for held in on]))
    # Layers don't depend on each other: what a row costs is known from plans with one and the same other row.
    replicas = np.array([int((row >= 0).sum()) - 4 for row in rows])
    first = np.array([score(limited, np.stack([row, rows[0]])).total for row in rows])
    second = np.array([score(limited, np.stack([rows[0], row])).total for row in rows])
    total = first[:, None] + second[None, :] - first[0]
    best = total[replicas[:, None] + replicas[None, :] <= budget].min()
    assert solve(limited, "annealing", limits=Limits(work=40_000)).plan.score == pytest.approx(best)


def grouped_routing(slots: int, **constraints: object) -> Problem:
    """Three layers whose router keeps to groups: many replicas save much, a single one next to nothing."""
    routing = Synthetic(
        num_layers=3, num_experts=16, top_k=4, num_tokens=1500, groups=4, group_limit=2, tokens_per_sequence=32
    )
    objective = Objective(execution="dispatch", dedup="node")
    return problem_of(routing, "2x2", slots, objective, Constraints(**constraints))  # type: ignore[arg-type]


def cost(given: Problem) -> float:
    """Return the best that three searches of fixed length find: one may end 5 % above another."""
    return min(solve(given, "annealing", limits=Limits(work=70_000), seed=seed).score.total for seed in range(3))


def test_budget_with_room_to_choose_is_as_good_as_one_spare_slot_per_gpu() -> None:
    """Twelve replicas anywhere in six slots per GPU cost no more than the twelve of five slots per GPU."""
    assert cost(grouped_routing(6, extra_replicas=12)) <= cost(grouped_routing(5))


def test_more_replicas_never_cost_more() -> None:
    """From no replicas to as many as fit, the cost falls all the way."""
    costs = [cost(grouped_routing(6, extra_replicas=budget)) for budget in (0, 6, 15, 24)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == cost(grouped_routing(6))


def test_pins_leave_the_other_slots_to_replicas() -> None:
    """Where EPLB gives no start because of a pin, replicas are still found, with a budget and without."""
    pins = (Pin(expert=3, gpu=2),)
    pinned = grouped_routing(6, pins=pins)
    plan = solve(pinned, "annealing", limits=Limits(work=200_000)).plan
    assert sum(extras(pinned, plan.physical_to_logical_map)) > 12
    assert cost(grouped_routing(6, pins=pins, extra_replicas=12)) < cost(
        grouped_routing(6, pins=pins, extra_replicas=0)
    )


def test_load_cap_is_kept_by_the_replicas_that_the_budget_allows() -> None:
    """Tokens between layers: one replica of the hot expert halves its load, and without it no plan keeps the cap."""
    given = replace(problem(None), objective=Objective().settled(capped=True))
    caps = Constraints(load_cap=1.5, extra_replicas=1)
    assert problem(0).relative_load[1].max() * 4 > 1.5
    allowed = replace(given, constraints=caps)
    table = solve(allowed, "annealing", limits=Limits(work=40_000)).plan.physical_to_logical_map
    assert extras(allowed, table) == [0, 1]
    assert score(allowed, table).max_load.max() <= 1.5


def test_auto_keeps_the_budget() -> None:
    """Every method of the portfolio that would fill the slots is left out."""
    limited = problem(1)
    assert sum(extras(limited, solve(limited, "auto", limits=Limits(work=20_000)).plan.physical_to_logical_map)) <= 1


def test_more_replicas_than_allowed_are_a_broken_constraint() -> None:
    """A full map breaks a smaller budget, and keeps one of just its size."""
    table = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]] * 2)
    assert [v.code for v in broken_constraints(problem(7), table).found] == ["extra_replicas_exceeded"]
    assert not broken_constraints(problem(8), table).found


def test_budget_below_the_pins_is_refused() -> None:
    """Pins that ask for a second replica need a budget for it, in each layer."""
    pins = (Pin(expert=0, gpu=0), Pin(expert=0, gpu=2))
    assert not problem(2, pins=pins).is_free
    with pytest.raises(InputError) as error:
        problem(1, pins=pins)
    assert [v.code for v in error.value.violations] == ["extra_replicas_range"]
    with pytest.raises(InputError):
        problem(-1)


def test_budget_that_never_binds_changes_nothing() -> None:
    """With room for fewer replicas than allowed, the problem is as free as without a budget."""
    assert problem(8).is_free
    assert not replace(problem(None), constraints=Constraints(extra_replicas=7)).is_free


@given(size=st.integers(1, 10**12), replicas=st.integers(0, 8), rest=st.floats(0, 1, exclude_max=True))
@settings(max_examples=40)
def test_bytes_are_as_many_replicas_as_fit(size: int, replicas: int, rest: float) -> None:
    """A budget in bytes is the one of the whole replicas in it, and may stand beside that number."""
    budget = replicas * size + int(rest * size)
    by_bytes = Constraints(extra_bytes=budget)
    limited = replace(PLAIN, constraints=by_bytes, expert_bytes=size)
    assert limited.replica_budget == replicas
    assert limited.replicas_limited == replace(PLAIN, constraints=Constraints(extra_replicas=replicas)).replicas_limited
    assert replace(limited, constraints=replace(by_bytes, extra_replicas=replicas)).replica_budget == replicas


def test_bytes_give_the_plan_of_the_same_number_of_replicas() -> None:
    """The search spends a budget in bytes as one in replicas, and the plan records both figures."""
    by_count = problem(3)
    by_bytes = replace(by_count, constraints=Constraints(extra_bytes=399), expert_bytes=100)
    plans = [solve(limited, "annealing", limits=Limits(work=20_000)).plan for limited in (by_count, by_bytes)]
    assert np.array_equal(plans[0].physical_to_logical_map, plans[1].physical_to_logical_map)
    assert plans[1].provenance["constraints"]["extra_bytes"] == 399
    assert plans[1].provenance["expert_bytes"] == 100
    full = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]] * 2)
    assert [v.pointer for v in broken_constraints(by_bytes, full).found] == ["/constraints/extra_bytes"]
