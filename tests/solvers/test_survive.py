"""Searches keep what has to survive, and other maps are mended."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import OptimizeResult, milp

from placement import Constraints, Group, Objective, Pin, Problem, Survive, Topology, prove_survival
from placement.cost.feasibility import broken_constraints
from placement.survival.rule import SurvivalRule
from solvers import Against, Limits, NoPlanError, front, names, solve
from solvers.searching.search import Search
from solvers.survival import model
from solvers.survival.effort import Effort, OutOfEffortError, Rows
from solvers.survival.exact import kept_exactly
from solvers.survival.repair import alive_by_load, kept_alive
from solvers.survival.rule import alive_of, try_exchange, undo_exchange
from tests.builders.problems import problem_of, random_table
from tests.builders.traces import profile_of
from traces import InputError
from traces.synthetic import Synthetic

SOURCE = Synthetic(num_layers=2, num_experts=8, top_k=2, num_tokens=400, seed=0)
OBJECTIVES = {
    "context_coherent": Objective(),
    "dispatch_none": Objective(execution="dispatch", dedup="none", imbalance_weight=1.0),
    "dispatch_gpu": Objective(execution="dispatch", dedup="gpu"),
}


def problem(text: str, slots: int, objective: str = "dispatch_none", topology: str = "2x2") -> Problem:
    """Return a small problem where something has to survive."""
    constraints = Constraints(survive=Survive.parse(text), load_cap=1.2)
    return problem_of(SOURCE, topology, slots, OBJECTIVES[objective], constraints)


def test_any_map_is_mended_where_the_slots_allow_it() -> None:
    """300 random maps of random sizes; what the slots don't allow is refused before."""
    rng = np.random.default_rng(0)
    profile = problem("gpus=1", 4).profile
    mended = 0
    while mended < 300:
        topology = Topology.parse(str(rng.choice(["1x4", "2x2", "3x2", "2+1+3", "4x1"])))
        slots = int(rng.integers(2, 9))
        if slots * topology.num_gpus < 8:
            continue
        unit, failures = str(rng.choice(["gpus", "nodes", "links"])), int(rng.integers(1, 3))
        asked = Survive.parse(f"{unit}={failures}" + rng.choice(["", ",lost=least"]))
        try:
            small = Problem(profile, topology, slots, OBJECTIVES["dispatch_none"], Constraints(survive=asked))
        except InputError:
            continue
        mended += 1
        table = random_table(rng, 2, 8, topology.num_gpus, slots, "either")
        assert not broken_constraints(small, kept_alive(small, table)).found
        assert not broken_constraints(small, alive_by_load(small)).found


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("text", "slots"), [("nodes=1", 5), ("gpus=2", 7), ("nodes=1,lost=least", 3)])
def test_every_solver_keeps_it_or_refuses(objective: str, text: str, slots: int) -> None:
    """No plan breaks it; annealing takes all of them and is no worse than what was mended only."""
    asked, found, refused = problem(text, slots, objective), {}, {}
    for name in names():
        try:
            found[name] = solve(asked, name, limits=Limits(work=4000), workers=1).plan
        except InputError as error:
            refused[name] = {violation.code for violation in error.violations}
    for plan in found.values():
        assert not broken_constraints(asked, plan.physical_to_logical_map).found
    scores = {name: plan.score or 0.0 for name, plan in found.items()}
    assert scores["annealing"] <= scores["contiguous"]
    assert {"annealing", "auto", "contiguous", "load_balance"} <= set(found)
    assert refused["cp_sat"] == {"unsupported"}
    assert all(codes == {"unsupported"} for codes in refused.values())


@pytest.mark.parametrize(("failures", "lost"), [(1, 0), (1, 1), (2, 0)])
def test_exchanges_are_counted_as_anew(failures: int, lost: int) -> None:
    """What a move keeps up to date is what a look at the whole row gives, refused moves included."""
    rng = np.random.default_rng(0)
    domain = np.array([0, 0, 1, 1, 2, 2])
    rule = SurvivalRule(domain=domain, room=np.full(3, 6), failures=failures, lost=lost)
    row = random_table(rng, 1, 6, 6, 3, "either")[0]
    alive = alive_of(row, rule, 6, 3)
    for step in range(300):
        i, j = rng.integers(0, 18, 2)
        before = int(alive.over[0])
        done = try_exchange(int(row[i]), int(row[j]), i // 3, j // 3, alive)
        if done and step % 3 == 0:
            undo_exchange(int(row[i]), int(row[j]), i // 3, j // 3, alive)
        elif done:
            row[i], row[j] = row[j], row[i]
        anew = alive_of(row, rule, 6, 3)
        assert all(np.array_equal(getattr(alive, name), getattr(anew, name)) for name in ("held", "spread", "short"))
        assert alive.over[0] == anew.over[0] <= before


def test_the_front_against_survival_shows_its_price() -> None:
    """From none lost to what a plan loses that need not survive; scores fall, and every plan loses what it says."""
    asked = problem("nodes=1", 5)
    found = front(asked, against="survival", points=3, limits=Limits(work=6000), solver="annealing", workers=1)
    lost = [point.lost_experts or 0 for point in found.points]
    assert lost[0] == 0
    assert lost == sorted(set(lost))
    assert [point.score.total for point in found.points] == sorted((p.score.total for p in found.points), reverse=True)
    for point in found.points:
        proof = prove_survival(point.plan, asked.topology, "nodes=1")
        assert proof.lost_in_layer == point.lost_experts


@pytest.mark.parametrize(
    ("against", "text"), [("bytes_moved", "nodes=1"), ("survival", "gpus=2"), ("survival", "none")]
)
def test_fronts_that_make_no_sense_are_refused(against: Against, text: str) -> None:
    """Moves are searched for with pins; losses of several failures are not bounded; something has to fail."""
    asked = problem("nodes=1" if text == "none" else text, 7)
    if text == "none":
        asked = replace(asked, constraints=Constraints())
    with pytest.raises(InputError) as caught:
        front(asked, against=against)
    codes = {violation.code for violation in caught.value.violations}
    assert codes & {"survive_beside", "failures_range", "survive_missing"}


def drawn_rules(rng: np.random.Generator) -> Constraints:
    """Return something that has to survive beside pins, exclusions and a group, as they come."""
    asked = f"{rng.choice(['gpus', 'nodes', 'links'])}={rng.integers(1, 3)}{rng.choice(['', ',lost=1', ',lost=least'])}"
    pins, away = (
        tuple(Pin(expert=int(rng.integers(4)), gpu=int(rng.integers(4))) for _ in range(rng.integers(0, most)))
        for most in (3, 5)
    )
    group = (Group(experts=tuple(rng.permutation(4)[:2].tolist())),) if rng.random() < 0.4 else ()
    return Constraints(survive=Survive.parse(asked), pins=pins, forbidden=away, groups=group)


@cache
def all_rows(slots: int) -> npt.NDArray[np.bool_]:
    """Return every way to have up to so many of four experts on each of four GPUs, (N, E, G)."""
    own = [each for each in product([False, True], repeat=4) if sum(each) <= slots]
    return np.array(list(product(own, repeat=4))).transpose(0, 2, 1)


def on_gpus(row: npt.NDArray[Any], slots: int) -> npt.NDArray[np.bool_]:
    """Return where four experts are on four GPUs, (E, G)."""
    held, there = np.zeros((4, 4), bool), np.flatnonzero(row >= 0)
    held[row[there], there // slots] = True
    return held


def keeping(rows: npt.NDArray[np.bool_], small: Problem) -> npt.NDArray[np.bool_]:
    """Return those that keep every rule, by looking at each."""
    rule, constraints, node = small.sizes.survival, small.constraints, small.topology.node_of_gpu
    assert rule is not None
    fine: npt.NDArray[np.bool_] = np.all(np.any(rows, axis=2), axis=1)
    for pin in constraints.pins:
        fine &= rows[:, pin.expert, pin.gpu]
    for pin in constraints.forbidden:
        fine &= ~rows[:, pin.expert, pin.gpu]
    for group in constraints.groups:
        on = [rows[:, list(group.experts)][:, :, node == n].any(axis=(1, 2)) for n in np.unique(node)]
        fine &= np.sum(on, axis=0) == 1
    for failing in combinations(range(len(rule.room)), rule.failures):
        fine &= (~rows[:, :, ~np.isin(rule.domain, failing)].any(axis=2)).sum(axis=1) <= rule.lost
    return rows[fine]


def test_survival_beside_other_rules_is_exact() -> None:
    """300 tiny cases against all arrangements: what is possible is found, with few changes; what is not is told."""
    rng = np.random.default_rng(1)
    profile = profile_of(Synthetic(num_layers=1, num_experts=4, top_k=2, num_tokens=100, seed=0))
    drawn = possible = 0
    while drawn < 300:
        machine, slots = str(rng.choice(["2x2", "1x4", "4x1", "1+1+2"])), int(rng.choice([2, 2, 2, 3]))
        try:
            small = problem_of(profile, machine, slots, OBJECTIVES["dispatch_none"], drawn_rules(rng))
        except InputError:
            continue
        drawn += 1
        row = random_table(rng, 1, 4, 4, slots)[0]
        wanted = on_gpus(row, slots)
        rows = keeping(all_rows(slots), small)
        if not len(rows):
            with pytest.raises(NoPlanError, match="exists"):
                kept_exactly(small, 0, row)
            continue
        possible += 1
        found = kept_exactly(small, 0, row)
        assert not broken_constraints(small, found[None]).found
        held = on_gpus(found, slots)
        worth = 2 * (rows & wanted).sum(axis=(1, 2)) - (rows & ~wanted).sum(axis=(1, 2))
        assert 2 * (held & wanted).sum() - (held & ~wanted).sum() == worth.max()
    assert 30 < possible < 270


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_solvers_keep_pins_and_groups_as_well(objective: str) -> None:
    """Every method that takes them all; what is pinned, kept away and together stays so in what survives a GPU."""
    rules = Constraints(
        survive=Survive.parse("gpus=1"),
        pins=(Pin(expert=0, gpu=3), Pin(expert=1, gpu=3)),
        forbidden=(Pin(expert=2, gpu=0),),
        groups=(Group(experts=(4, 5)),),
    )
    asked = problem_of(SOURCE, "2x2", 5, OBJECTIVES[objective], rules)
    for name in ("annealing", "auto", "contiguous"):
        plan = solve(asked, name, limits=Limits(work=2000), workers=1).plan
        assert not broken_constraints(asked, plan.physical_to_logical_map).found
        assert prove_survival(plan, asked.topology, "gpus=1").survives


def beside_a_pin() -> Problem:
    """Return a problem that only the exact model mends."""
    rules = Constraints(survive=Survive.parse("gpus=1"), pins=tuple(Pin(expert=e, gpu=3) for e in range(5)))
    return problem_of(SOURCE, "2x2", 5, OBJECTIVES["dispatch_none"], rules)


def stuck(*_: object, options: dict[str, Any], **__: object) -> OptimizeResult:
    """Stand for a model that finds nothing until its time is up."""
    time.sleep(options.get("time_limit", 0.0))
    return OptimizeResult(x=None, status=1)


def test_repairs_end_with_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that never end cost no more than the search's time and its grace, however many methods ask for them."""
    monkeypatch.setattr(model, "milp", stuck)
    began = time.monotonic()
    with pytest.raises(NoPlanError, match="in the effort allowed") as caught:
        solve(beside_a_pin(), "annealing", limits=Limits(time_s=0.2), workers=1)
    assert caught.value.termination.limit == "time"
    assert time.monotonic() - began < 30  # compiling is not on the clock; the model once had 60 s a layer


def test_a_repair_out_of_effort_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search goes on with the plan it has, and says what it left out; under a work limit it stays repeatable."""
    asked = beside_a_pin()
    first = solve(asked, "annealing", limits=Limits(work=500), workers=1).plan
    monkeypatch.setattr(model, "milp", stuck)
    search = Search(asked, Limits(work=500))
    score = search.offer(first.physical_to_logical_map)
    unsafe = np.tile(np.r_[np.arange(8), np.full(12, -1)], (2, 1))
    assert search.offer(unsafe) == np.inf
    assert search.best_score == score
    outcome = search.outcome()
    assert "left out" in outcome.notes[0]
    assert not outcome.clocked
    assert solve(asked, "auto", start=first, limits=Limits(work=500), workers=1).termination.deterministic


def test_only_layers_that_break_a_rule_are_solved_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that keeps all rules comes back as it is; one that was mended, or given up, is not solved again."""
    asked, solved = beside_a_pin(), []

    def counted(*args: Any, **options: Any) -> Any:
        solved.append(1)
        return milp(*args, **options)

    monkeypatch.setattr(model, "milp", counted)
    effort = Effort(rows=Rows(asked))
    unsafe = np.tile(np.r_[np.arange(8), np.full(12, -1)], (2, 1))
    unsafe[1] = kept_exactly(asked, 1, unsafe[1])
    solved.clear()
    for _ in range(2):
        mended = kept_alive(asked, unsafe, effort)
        assert np.array_equal(alive_by_load(asked, effort), alive_by_load(asked, effort))
        assert np.array_equal(kept_exactly(asked, 0, mended[0]), mended[0])
    assert len(solved) <= 3  # layer 0 as offered, and each layer as dealt out
    monkeypatch.setattr(model, "milp", stuck)
    with pytest.raises(OutOfEffortError):
        kept_exactly(asked, 0, np.roll(unsafe[0], 1), effort)
    monkeypatch.setattr(model, "milp", counted)
    with pytest.raises(OutOfEffortError):
        kept_exactly(asked, 0, np.roll(unsafe[0], 1), effort)
    with pytest.raises(OutOfEffortError, match="cancelled"):
        kept_exactly(asked, 0, np.roll(unsafe[0], 2), Effort(stopped=lambda: True))
