"""Layers that are dealt out to workers: the plan of one machine, whoever searches them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from placement import Constraints, Objective, Problem, Topology
from solvers import Limits, Request, Solution, solve
from solvers.methods.annealing.replay.kernels.trials import anneal_layer
from solvers.searching.dealing import without_pairs
from solvers.seeds import best_of_seeds
from tests.builders.traces import profile_of, random_trace
from traces import Profile

WORK = 6_000
asked: list[str] = []


class Pickling(ThreadPoolExecutor):
    """Threads that get everything by pickle, as workers elsewhere do."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run what arrives."""
        asked.append(getattr(fn, "__qualname__", repr(fn)))
        content = pickle.dumps((fn, args, kwargs))

        def run() -> Any:
            function, positional, named = pickle.loads(content)  # made above
            return pickle.loads(pickle.dumps(function(*positional, **named)))

        return super().submit(run)


@pytest.fixture(scope="module")
def profile() -> Profile:
    """Return a profile of five layers."""
    return profile_of(random_trace(4, 400, 5, 12, 3, seq_id=np.arange(400) // 20))


def problem_of(profile: Profile, **constraints: Any) -> Problem:
    """Return a problem with redundant experts on two nodes."""
    objective = Objective(execution="dispatch", dedup="node", imbalance_weight=2.0, load_spread_weight=0.5)
    return Problem(profile, Topology.parse("2x2"), 4, objective, Constraints(**constraints))


def searched(problem: Problem, workers: int, solver: str, **limits: Any) -> Solution:
    """Search on so many workers."""
    asked.clear()
    request = Request(topology="2x2", solver=solver, limits=Limits(**limits), seed=3)
    return best_of_seeds(problem, request, executor=lambda: Pickling(workers))


@pytest.mark.parametrize(("solver", "constraints"), [("auto", {}), ("annealing", {"extra_replicas": 7})])
def test_the_plan_is_that_of_one_machine(profile: Profile, solver: str, constraints: dict[str, Any]) -> None:
    """Same seed and work: the same map on three workers and here; what arrives by pickle compiles no loop once more."""
    problem = problem_of(profile, **constraints)
    here = solve(problem, solver, limits=Limits(work=WORK), seed=3, workers=2).plan
    compiled = len(anneal_layer.signatures)
    dealt = searched(problem, 3, solver, work=WORK).plan
    assert asked == ["_Task.run"] * 3
    assert dealt.physical_to_logical_map.tolist() == here.physical_to_logical_map.tolist()
    assert (dealt.score, dealt.bound) == (here.score, here.bound)
    assert dealt.termination == here.termination
    assert len(anneal_layer.signatures) == compiled == 1


def test_with_a_clock_the_search_moves_as_a_whole(profile: Profile) -> None:
    """Layers are not dealt out, as clocks differ."""
    searched(problem_of(profile), 2, "annealing", time_s=0.05)
    assert asked == ["_Search.run"]


def test_what_is_dealt_out_has_no_pairs(profile: Profile) -> None:
    """The same problem for a search by tokens, however its slots were given."""
    redundant = Problem(profile, Topology.parse("2x2"), engine="sglang", redundant_experts=4)
    for problem in (problem_of(profile), redundant):
        lean = without_pairs(problem)
        assert (lean.objective, lean.slots_per_gpu, lean.engine) == (
            problem.objective,
            problem.slots_per_gpu,
            problem.engine,
        )
        assert lean.profile.coactivation is None
        assert len(pickle.dumps(lean)) < len(pickle.dumps(problem))
