"""Searches keep what has to survive, and other maps are mended."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement import Constraints, Objective, Problem, Survive, Topology, prove_survival
from placement.cost.feasibility import broken_constraints
from placement.problem.sizes import SurvivalRule
from solvers import Against, Limits, front, names, solve
from solvers.arrange.survival.repair import alive_by_load, kept_alive
from solvers.arrange.survival.rule import alive_of, try_exchange, undo_exchange
from tests.builders.problems import problem_of, random_table
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
