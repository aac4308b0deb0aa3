"""Fronts: what is on them, where their knee is, and what they promise."""

import threading
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement import Constraints, Objective, Pin, Plan, Problem, Topology, evaluate, score
from placement.cost.feasibility import broken_constraints
from placement.moves.cycles import cycles
from placement.plan.plan import replicas_on_gpu
from solvers import Event, Front, Limits, NoPlanError, front, make_plan, solve
from solvers.fronts.candidates import moved_replicas
from solvers.fronts.pareto import knee_index, nondominated, thinned
from solvers.fronts.points import FrontPoint
from solvers.methods.eplb.solver import Eplb
from tests.builders.problems import problem_of
from tests.builders.traces import profile_of
from traces import InputError, LoadCounts, Profile, Trace
from traces.synthetic import Synthetic, generate

WORK = Limits(work=60_000)
DISPATCH = Objective(execution="dispatch", dedup="node")


@cache
def profile() -> Profile:
    """Count three layers of 16 experts in four groups, of which a token uses two."""
    return profile_of(routing(16, 3, 1500))


def routing(experts: int, layers: int, tokens: int) -> Synthetic:
    """Group-limited routing."""
    return Synthetic(
        num_layers=layers,
        num_experts=experts,
        top_k=4,
        num_tokens=tokens,
        groups=4,
        group_limit=2,
        tokens_per_sequence=32,
    )


def problem(objective: Objective | None = None, slots: int = 5, **constraints: Any) -> Problem:
    """Two nodes of two GPUs."""
    return problem_of(profile(), "2x2", slots, objective, Constraints(**constraints), expert_bytes=100)


def running(of: Problem) -> Plan:
    """Return EPLB's plan."""
    return solve(of, "eplb", limits=Limits(time_s=None), workers=1).plan


def figures(found: Front) -> list[tuple[float, float]]:
    """Return both figures of every point."""
    return list(zip(*(axis.tolist() for axis in found.axes), strict=True))


def tables(found: Front) -> list[list[list[int]]]:
    """Return the maps of all points."""
    return [point.plan.physical_to_logical_map.tolist() for point in found.points]


@pytest.mark.parametrize("objective", [Objective(), DISPATCH], ids=["context", "dispatch"])
@pytest.mark.parametrize("against", ["imbalance", "replicas", "bytes_moved"])
def test_figures_rise_and_cost_falls(objective: Objective, against: Any) -> None:
    """Nothing on a front is dominated; every plan keeps the constraints and is what its figures say."""
    given = problem(objective)
    found = front(given, limits=WORK, points=5, against=against, start=running(given), workers=1)
    figure, cost = found.axes
    assert 2 <= len(found.points) <= 5
    assert (np.diff(figure) > 0).all()
    assert (np.diff(cost) < 0).all()
    for point in found.points:
        own = replace(given, slots_per_gpu=point.slots_per_gpu)
        table = point.plan.physical_to_logical_map
        assert not broken_constraints(own, table).found
        assert point.plan.score == pytest.approx(score(own, table).total)
        assert point.redundant_experts == point.slots_per_gpu * 4 - 16
        assert point.extra_bytes == point.redundant_experts * 3 * 100
        assert point.moved_bytes == 100 * int(moved_replicas(running(given), point.plan).sum())


@pytest.mark.parametrize("objective", [Objective(), DISPATCH], ids=["context", "dispatch"])
def test_ends_are_at_least_as_good_as_their_baselines(objective: Objective) -> None:
    """Neither EPLB is more balanced than the first point, nor has it less traffic than the last."""
    given = problem(objective)
    found = front(given, limits=WORK, points=6, num_groups=4)
    for eplb in (Eplb(policy="global"), Eplb(policy="hierarchical", num_groups=4)):
        balanced = solve(given, eplb, limits=Limits(time_s=None), workers=1)
        assert found.points[0].imbalance <= balanced.score.max_load.mean() + 1e-12
        assert found.points[-1].traffic <= balanced.score["traffic"].value + 1e-12


def test_counts_have_plans_between_no_move_and_most() -> None:
    """A plan for other loads gains most of what there is with few moves, however short the search is."""
    rng = np.random.default_rng(0)
    loads = [LoadCounts.of(rng.permuted(1000 / np.arange(1, 65) ** 0.8 * np.ones((4, 1)), axis=1)) for _ in range(2)]
    old, new = (Problem(Profile.of(load), Topology.parse("2x4"), 9, engine="sglang") for load in loads)
    start = solve(old, "load_balance", limits=Limits(work=10_000), workers=1).plan
    found = front(new, limits=Limits(work=10_000), points=8, against="bytes_moved", start=start, workers=1)
    moved = [point.moved_experts or 0 for point in found.points]
    gained = [found.points[0].score.total - point.score.total for point in found.points]
    assert moved[0] == 0
    assert sum(0 < item < 4 * 72 / 4 for item in moved) >= 2
    assert max(gain for item, gain in zip(moved, gained, strict=True) if item < 4 * 72 / 4) > 0.75 * gained[-1]


def test_points_beyond_the_problems_cap_are_left_out() -> None:
    """A load cap is the end of the front."""
    given = problem(load_cap=1.2)
    found = front(given, limits=WORK, points=5)
    assert all(point.worst_layer <= 1.2 + 1e-9 for point in found.points)
    assert len(found.points) > 1


def test_pins_are_kept_and_need_no_eplb() -> None:
    """Constraints hold on every point."""
    found = front(problem(pins=(Pin(expert=3, gpu=2),)), limits=WORK, points=4)
    assert all(point.plan.replicas_on_gpu[:, 3, 2].all() for point in found.points)


@pytest.mark.parametrize(("against", "budget"), [("imbalance", 9), ("replicas", 18)])
def test_budget_of_replicas_is_kept_by_every_point(against: Any, budget: int) -> None:
    """Also by mixes of layers, each of which has replicas from another plan; and the bytes told are those allowed."""
    given = problem(DISPATCH, slots=6, extra_replicas=budget)
    found = front(given, limits=WORK, points=5, against=against)
    assert len(found.points) > 1
    for point in found.points:
        own = replace(given, slots_per_gpu=point.slots_per_gpu)
        assert not broken_constraints(own, point.plan.physical_to_logical_map).found
        assert point.extra_bytes == 100 * min(3 * point.redundant_experts, budget)


def test_solver_that_fills_all_slots_is_refused_before_the_first_search() -> None:
    """Against replicas, where only the larger sizes have more slots than the budget allows replicas."""
    events: list[Event] = []
    with pytest.raises(InputError, match="5 slots") as error:
        front(problem(DISPATCH, extra_replicas=3), solver="eplb", against="replicas", observe=events.append)
    assert [item.pointer for item in error.value.violations] == ["/solver"]
    assert not events


def test_moves_start_at_the_running_plan_and_never_cost_more() -> None:
    """Against bytes moved the first point moves nothing; the last one is the best plan found."""
    given = problem(DISPATCH)
    start = running(given)
    found = front(given, limits=WORK, points=6, against="bytes_moved", start=start)
    assert found.points[0].moved_experts == 0
    assert found.points[0].score.total <= score(given, start.physical_to_logical_map).total
    assert len(found.points) > 2  # something between nothing and everything


def test_an_extra_slot_is_listed_only_where_it_buys_something() -> None:
    """Slots rise from the least number that holds all experts to the problem's own."""
    found = front(problem(DISPATCH, slots=6), limits=WORK, points=9, against="replicas")
    sizes = [point.slots_per_gpu for point in found.points]
    assert sizes[0] == 4
    assert set(sizes) <= {4, 5, 6}


@pytest.mark.parametrize("objective", [Objective(), DISPATCH], ids=["context", "dispatch"])
@pytest.mark.parametrize("against", ["imbalance", "bytes_moved"])
def test_same_work_and_seed_give_the_same_front(objective: Objective, against: Any) -> None:
    """Whatever the number of threads."""
    given = problem(objective)
    runs = [
        front(given, limits=WORK, points=4, seed=3, against=against, start=running(given), workers=workers)
        for workers in (1, 2)
    ]
    assert tables(runs[0]) == tables(runs[1])
    assert all(point.plan.termination and point.plan.termination.deterministic for point in runs[0].points)


def test_interrupt_keeps_what_was_found() -> None:
    """The front so far is returned, and says that it was stopped."""
    stop = threading.Event()
    solved: list[Event] = []

    def observe(event: Event) -> None:
        solved.append(event)
        if event.kind == "incumbent":
            stop.set()

    found = front(problem(DISPATCH), limits=Limits(time_s=100), observe=observe, interrupt=stop, points=50)
    assert found.stopped
    assert found.points
    assert found.elapsed_s < 100
    assert all(point.plan.termination and not point.plan.termination.deterministic for point in found.points)


def test_every_violation_of_a_request_is_told_at_once() -> None:
    """Too few points, no start, groups that do not divide."""
    with pytest.raises(InputError) as error:
        front(problem(), points=2, against="bytes_moved", num_groups=3)
    assert {item.pointer for item in error.value.violations} == {"/points", "/start", "/num_groups"}


def hand_made(*places: tuple[float, float]) -> Front:
    """Return a front against the imbalance with these imbalances and traffics."""
    given = problem()
    plan = running(given)
    scored = score(given, plan.physical_to_logical_map)
    points = tuple(
        FrontPoint(
            plan=make_plan(given, plan.physical_to_logical_map),
            score=scored,
            traffic=traffic,
            imbalance=imbalance,
            worst_layer=imbalance,
            slots_per_gpu=5,
            redundant_experts=4,
            extra_bytes=None,
            moved_experts=None,
            moved_bytes=None,
        )
        for imbalance, traffic in places
    )
    return Front(against="imbalance", points=points)


def test_knee_is_the_point_farthest_below_the_chord() -> None:
    """In axes scaled to the ends: (0, 0), (.1, .7), (.5, .9) and (1, 1) are 0, .6, .4 and 0 from the chord."""
    found = hand_made((1.0, 20.0), (1.2, 13.0), (2.0, 11.0), (3.0, 10.0))
    assert found.knee is found.points[1]


def test_knee_of_a_front_above_its_chord_is_the_balanced_end() -> None:
    """No point between is worth more than it costs."""
    assert knee_index(np.array([0.0, 1.0, 2.0]), np.array([2.0, 1.9, 0.0])) == 0
    assert knee_index(np.array([1.0, 2.0]), np.array([2.0, 1.0])) == 0


def test_obeying_a_cap_takes_the_cheapest_that_keeps_it() -> None:
    """At the cap itself counts; below the most balanced point there is nothing."""
    found = hand_made((1.02, 20.0), (1.2, 13.0), (2.0, 11.0))
    assert found.obeying(1.2) is found.points[1]
    assert found.obeying(1.19) is found.points[0]
    with pytest.raises(NoPlanError, match=r"1\.0200"):
        found.obeying(1.01)
    with pytest.raises(InputError):
        found.obeying(0.9)


PLACES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@given(PLACES)
def test_nondominated_agrees_with_the_definition(places: list[tuple[int, int]]) -> None:
    """Exactly the places that no other one equals or beats in both figures."""
    kept = [places[item] for item in nondominated(*zip(*places, strict=True))]
    best = {a for a in places if not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in places)}
    assert kept == sorted(best)


@given(st.integers(3, 10), st.integers(2, 10))
def test_thinning_keeps_the_ends(size: int, most: int) -> None:
    """And as many points as it may."""
    figure, cost = list(range(size)), [1.0 / (1 + item) for item in range(size)]
    kept = thinned(figure, cost, most)
    assert len(kept) == min(size, most)
    assert (kept[0], kept[-1]) == (0, size - 1)


@given(st.integers(0, 1000), st.integers(2, 5), st.integers(2, 4))
def test_each_cycle_alone_keeps_every_expert_and_all_together_are_the_target(
    seed: int, gpus: int, per_gpu: int
) -> None:
    """Cycles of moves between two rows with replicas and empty slots."""
    rng = np.random.default_rng(seed)
    experts = gpus * per_gpu - 1

    def row() -> np.ndarray[Any, np.dtype[np.int32]]:
        held = np.concatenate([np.arange(experts), rng.integers(-1, experts, 1)])
        return rng.permutation(held).astype(np.int32)

    start, target = row(), row()
    before, after = (replicas_on_gpu(item[None], experts, gpus)[0] for item in (start, target))
    total = before.copy()
    for cycle in cycles(start, target, gpus):
        alone = before.copy()
        for expert, a, b in cycle:
            for counts in (alone, total):
                if expert >= 0 and a >= 0:
                    counts[expert, a] -= 1
                if expert >= 0 and b >= 0:
                    counts[expert, b] += 1
        assert (alone >= 0).all()
        assert (alone.sum(axis=1) >= 1).all()
        assert (alone.sum(axis=0) <= per_gpu).all()
    assert (total == after).all()


@pytest.mark.slow
def test_front_beats_the_line_between_hierarchical_and_global_eplb_on_held_out_tokens() -> None:
    """A small version of benchmarks/front.py: points strictly between the two, below the straight line."""
    fit, held = generate(routing(32, 3, 8000)).split(0.5)
    topology = Topology.parse("4x2")
    given = Problem(Profile.of(fit, workers=1), topology, 5, DISPATCH)
    eplb = [Eplb(policy="global"), Eplb(policy="hierarchical", num_groups=4)]
    plans = [solve(given, solver, limits=Limits(time_s=None), workers=1).plan for solver in eplb]
    found = front(given, limits=Limits(work=400_000), points=10, num_groups=4)

    def place(plan: Plan) -> tuple[float, float]:
        verdict = evaluate(plan, held, topology, execution="dispatch", dedup="node")
        assert verdict.remote_nodes is not None
        return verdict.imbalance_max_over_mean, verdict.remote_nodes

    balanced, frugal = map(place, plans)
    places = [place(point.plan) for point in found.points]
    between = [item for item in places if balanced[0] < item[0] < frugal[0]]
    slope = (frugal[1] - balanced[1]) / (frugal[0] - balanced[0])
    line = [balanced[1] + slope * (item[0] - balanced[0]) for item in between]
    better = [item for item, value in zip(between, line, strict=True) if item[1] < value]
    assert len(better) >= 3, (balanced, frugal, places)


def test_counts_alone_have_a_front() -> None:
    """Dispatch without deduplication needs loads only."""
    load = np.random.default_rng(0).integers(1, 50, (2, 8))
    ids = np.stack([np.repeat(np.arange(8), 10)] * 2, axis=1)[:, :, None]
    counted = replace(Profile.of(Trace.of(ids, num_experts=8), workers=1), sample=None, affinity=None)
    assert load.size
    given = Problem(counted, Topology.parse("1x4"), objective=Objective(execution="dispatch", dedup="none"))
    assert front(given, limits=Limits(work=5000), points=3).points
