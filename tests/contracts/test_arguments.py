"""Arguments of another type end in an error that names place, rule and remedy, at every public function."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import placement
import solvers
import traces
from placement import Plan, Problem, Topology
from placement.exports import load_placement
from solvers import Study
from tests.builders.traces import random_trace
from traces import InputError, Profile, Trace

TRACE = random_trace(0, 40, 2, 8)


@cache
def study() -> Study:
    """Return a study of the trace."""
    return Study.of(TRACE, "1x4", solver="contiguous", workers=1)


def problem() -> Problem:
    """Return its problem."""
    return study().problem


@cache
def plan() -> Plan:
    """Return a plan for it."""
    return problem().plan(np.tile(np.arange(8), (2, 1)))


CALLS: dict[str, tuple[str, Callable[[], Any]]] = {
    "a path for a trace": ("/trace", lambda: placement.evaluate(plan(), "path")),  # type: ignore[arg-type]
    "a text for a plan": ("/b", lambda: placement.diff(plan(), "x")),  # type: ignore[arg-type]
    "a text for a topology": ("/topology", lambda: placement.evaluate(plan(), TRACE, "1x4")),  # type: ignore[arg-type]
    "a text for a number": ("/workers", lambda: placement.evaluate(plan(), TRACE, workers="x")),  # type: ignore[arg-type]
    "a number for an engine": ("/engine", lambda: placement.evaluate(plan(), TRACE, engine=3)),  # type: ignore[arg-type]
    "a number among plans": ("/x", lambda: study().compare(x=3)),  # type: ignore[arg-type]
    "a number in a mapping": ("/plans/a", lambda: study().compare({"a": 3})),  # type: ignore[dict-item]
    "a plan for a mapping": ("/plans", lambda: study().compare(plan())),  # type: ignore[arg-type]
    "no request": ("/request", lambda: Study.of(TRACE, request=3)),  # type: ignore[arg-type]
    "no path": ("/export", lambda: plan().export("sglang", foo=3)),  # type: ignore[call-arg]
    "an unknown field": ("/foo", lambda: plan().export("csv", "plan.csv", foo=3)),
    "a number for a path": ("/path", lambda: plan().save(3)),  # type: ignore[arg-type]
    "a number to load": ("/path", lambda: Plan.load(3)),  # type: ignore[arg-type]
    "a number to read": ("/path", lambda: load_placement(3)),  # type: ignore[arg-type]
    "no problem to score": ("/problem", lambda: placement.score("p", plan())),  # type: ignore[arg-type]
    "no problem to bound": ("/problem", lambda: placement.lower_bound("p")),  # type: ignore[arg-type]
    "no plan to split": ("/plan", lambda: placement.optimal_split(problem(), "x")),  # type: ignore[arg-type]
    "no problem to solve": ("/problem", lambda: solvers.solve("p")),  # type: ignore[arg-type]
    "no solver": ("/solver", lambda: solvers.solve(problem(), 3)),  # type: ignore[arg-type]
    "no limits": ("/limits", lambda: solvers.solve(problem(), limits=3)),  # type: ignore[arg-type]
    "no source to simulate": ("/source", lambda: solvers.simulate_residency(3, resident=0.5)),  # type: ignore[arg-type]
    "no points": ("/points", lambda: solvers.front(problem(), points="x")),  # type: ignore[arg-type]
    "no trace to profile": ("/trace", lambda: Profile.of("t.npz")),  # type: ignore[arg-type]
    "no experts": ("/num_experts", lambda: Trace.of([[[0]]], num_experts="x")),  # type: ignore[arg-type]
    "no share": ("/held_out", lambda: TRACE.split("x")),  # type: ignore[arg-type]
    "no function": ("/keep", lambda: TRACE.where(3, "x")),  # type: ignore[arg-type]
    "no trace to save": ("/trace", lambda: traces.save("x", "t.npz")),  # type: ignore[arg-type]
    "no text": ("/text", lambda: Topology.parse(3)),  # type: ignore[arg-type]
    "no profile": ("/profile", lambda: Problem(TRACE, Topology.parse("1x4"))),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_are_refused_with_place_rule_and_remedy(name: str) -> None:
    """No bare AttributeError or TypeError from somewhere inside."""
    pointer, call = CALLS[name]
    with pytest.raises(InputError) as error:
        call()
    (violation,) = error.value.violations
    assert violation.pointer == pointer
    assert violation.code in ("wrong_type", "wrong_call", "unknown_field")
    assert violation.detail.endswith(".")
    assert violation.remedy


def test_all_wrong_arguments_are_told_at_once() -> None:
    """One error for the whole call."""
    with pytest.raises(InputError) as error:
        placement.diff("a", 3, "x")  # type: ignore[arg-type]
    assert [item.pointer for item in error.value.violations] == ["/a", "/b", "/expert_bytes"]


def test_what_stands_for_a_type_is_taken() -> None:
    """NumPy's numbers are numbers, lists are sequences."""
    assert placement.diff(plan(), plan(), np.int64(8)).moved_bytes == 0  # type: ignore[arg-type]
    assert TRACE.split(np.float32(0.5))[0].num_experts == 8  # type: ignore[arg-type]
    assert Plan.of([[0, 1]], layer_ids=[0], num_experts=2, gpus_per_node=[2]).num_gpus == 2  # type: ignore[arg-type]
