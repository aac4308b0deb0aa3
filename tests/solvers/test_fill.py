"""No empty slots for engines that want none: how they are filled, and that every method's plan is full."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from placement import Constraints, Group, Objective, Pin, Problem, Topology, score
from placement.cost.feasibility import broken_constraints
from placement.plan.plan import replicas_on_gpu
from solvers import Limits, names, solve, solver_from
from solvers.searching.fill import fill_slots
from tests.builders.problems import problem_of
from tests.builders.traces import profile_of
from traces import InputError, Profile
from traces.synthetic import Synthetic

ENGINE = "sglang"


@cache
def profile(experts: int = 8) -> Profile:
    """Return a profile of two layers with a skewed load."""
    params = Synthetic(num_layers=2, num_experts=experts, top_k=2, num_tokens=256, tokens_per_sequence=16)
    return profile_of(params)


def problem(topology: str = "2x2", slots: int = 3, constraints: Constraints | None = None, experts: int = 8) -> Problem:
    """Return a problem of an engine that wants every slot full."""
    return problem_of(profile(experts), topology, slots, constraints=constraints, engine=ENGINE)


def bare(given_problem: Problem) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """Return experts in order with the spare slots of each GPU empty, (L, S)."""
    gpus, slots = given_problem.num_gpus, given_problem.slots_per_gpu
    table = np.full((given_problem.num_layers, gpus, slots), -1, np.int32)
    for expert in range(given_problem.num_experts):
        table[:, expert % gpus, expert // gpus] = expert
    return table.reshape(given_problem.num_layers, -1)


@given(st.sampled_from(["1x2", "2x2", "3+1"]), st.integers(0, 3), st.sampled_from([5, 8]), st.booleans())
def test_every_slot_is_filled_and_nothing_else_changes(topology: str, more: int, experts: int, distinct: bool) -> None:
    """A replica in each empty slot, no expert twice on a GPU where that is ruled out."""
    gpus = Topology.parse(topology).num_gpus
    slots = -(-experts // gpus) + more
    assume(not distinct or slots <= experts)
    asked = problem(topology, slots, Constraints(distinct_replicas=distinct), experts)
    table = bare(asked)
    filled = fill_slots(asked, table)
    assert (filled >= 0).all()
    assert (filled[table >= 0] == table[table >= 0]).all()
    assert broken_constraints(asked, filled).found == []


def test_the_table_that_is_given_is_left_alone() -> None:
    """The caller's map keeps its empty slots."""
    asked = problem()
    table = bare(asked)
    fill_slots(asked, table)
    assert (table == bare(asked)).all()


def test_the_busiest_experts_get_the_replicas() -> None:
    """Slot by slot, the expert with the largest load per replica that the GPU does not hold."""
    asked = problem()
    filled = fill_slots(asked, bare(asked))
    for layer in range(asked.num_layers):
        load, replicas = asked.relative_load[layer], np.ones(8)
        for gpu in range(4):
            held = {gpu, gpu + 4}
            best = max(set(range(8)) - held, key=lambda expert: load[expert] / replicas[expert])
            assert filled[layer, gpu * 3 + 2] == best
            replicas[best] += 1


def test_experts_stay_away_from_where_they_are_forbidden() -> None:
    """The busiest expert is not the one where an exclusion stands against it."""
    busiest = int(np.argmax(problem().relative_load[0]))
    away = tuple(Pin(expert=busiest, gpu=gpu) for gpu in range(4) if gpu != busiest % 4)
    asked = problem(constraints=Constraints(forbidden=away))
    filled = fill_slots(asked, bare(asked))
    assert (filled >= 0).all()
    assert (replicas_on_gpu(filled, 8, 4)[:, busiest].sum(axis=1) == 1).all()


def test_groups_stay_on_their_node() -> None:
    """Replicas of a group's experts too."""
    asked = problem(constraints=Constraints(groups=(Group(experts=(0, 1, 4)),)))
    filled = fill_slots(asked, bare(asked))
    assert (filled >= 0).all()
    assert not np.isin(filled.reshape(2, 2, 6)[:, 1], (0, 1, 4)).any()


def test_a_slot_that_no_expert_may_be_in_stays_empty() -> None:
    """Exclusions leave GPU 3 two experts for three slots, and none may be there twice."""
    away = tuple(Pin(expert=expert, gpu=3) for expert in range(8) if expert % 4 != 3)
    asked = problem(constraints=Constraints(forbidden=away))
    filled = fill_slots(asked, bare(asked))
    assert (filled < 0).reshape(2, 4, 3).sum(axis=2).tolist() == [[0, 0, 0, 1]] * 2


def test_only_the_slots_that_a_gpu_has_are_filled() -> None:
    """GPUs of a topology may have fewer slots than others."""
    machine = Topology.of((3,), slots=[2, 3, 4])
    asked = Problem(profile(), machine, 4, engine=ENGINE)
    table = np.full((2, 12), -1, np.int32)
    table[:, [0, 1, 4, 5, 6, 8, 9, 10]] = np.arange(8)
    filled = fill_slots(asked, table)
    assert (filled >= 0).reshape(2, 3, 4).sum(axis=2).tolist() == [[2, 3, 4]] * 2


@cache
def cases(name: str) -> list[Problem]:
    """Return problems that want every slot full, of each way that tokens travel, and of sizes that a method takes."""
    ways = ((ENGINE, None), (None, None), (None, Objective(execution="dispatch", dedup="none")))
    sizes = itertools.product(("1x2", "2x2", "1x4"), (4, 6, 8), (0, 1, 2), ways)
    made = [
        Problem(
            profile(experts),
            machine,
            min(experts, -(-experts // machine.num_gpus) + more),
            constraints=Constraints(full_slots=True if engine is None else None),
            engine=engine,
            objective=objective or Objective(),
        )
        for text, experts, more, (engine, objective) in sizes
        for machine in (Topology.parse(text),)
    ]
    return [item for item in made if solver_from(name).supports(item) is None]


SLOW = {"auto"}
METHODS = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names()]


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_plan_of_any_method_has_an_empty_slot(name: str, data: st.DataObject) -> None:
    """Under an engine that wants every slot full, or a constraint; the score is that of the plan with its replicas."""
    asked = data.draw(st.sampled_from(cases(name)))
    found = solve(asked, name, limits=Limits(work=300), workers=1)
    assert (found.plan.physical_to_logical_map >= 0).all()
    assert broken_constraints(asked, found.plan.physical_to_logical_map).found == []
    assert found.plan.score == score(asked, found.plan).total


def test_slots_stay_empty_where_nobody_wants_them_full() -> None:
    """Without an engine, and where the constraints say so."""
    free = Problem(profile(), Topology.parse("2x2"), 3)
    told = problem(constraints=Constraints(full_slots=False))
    for asked in (free, told):
        plan = solve(asked, "contiguous", limits=Limits(work=1), workers=1).plan
        assert (plan.physical_to_logical_map < 0).any()


def test_slots_are_filled_without_an_engine_if_the_constraints_say_so() -> None:
    """The constraint alone is enough."""
    asked = Problem(profile(), Topology.parse("2x2"), 3, constraints=Constraints(full_slots=True))
    plan = solve(asked, "contiguous", limits=Limits(work=1), workers=1).plan
    assert (plan.physical_to_logical_map >= 0).all()


@pytest.mark.parametrize(
    ("budget", "size", "pointer"), [("extra_replicas", None, "extra_replicas"), ("extra_bytes", 5, "extra_bytes")]
)
def test_a_budget_that_leaves_slots_empty_is_refused_where_they_must_be_full(
    budget: str, size: int | None, pointer: str
) -> None:
    """4 spare slots in each of 2 layers take 8 replicas; a smaller budget can't fill them, a larger one can."""

    def asked(replicas: int) -> Problem:
        given: dict[str, Any] = {budget: replicas * (size or 1)}
        limited = Constraints(**given)
        return Problem(profile(), Topology.parse("2x2"), 3, constraints=limited, expert_bytes=size, engine=ENGINE)

    with pytest.raises(InputError) as error:
        asked(7)
    assert [(item.code, item.pointer) for item in error.value.violations] == [
        ("budget_below_slots", f"/constraints/{pointer}")
    ]
    assert asked(8).full_slots
