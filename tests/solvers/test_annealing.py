"""Annealing: one seed, one plan."""

import pytest

from placement import Constraints, Problem, Topology
from solvers import Limits, solve
from traces import Profile
from traces.synthetic import Synthetic, generate


@pytest.mark.parametrize("seed", range(4))
def test_threads_do_not_change_the_plan(seed: int) -> None:
    """With a tight cap, what the restarts so far are crossed to is an incumbent, and threads decide how far."""
    tokens = Synthetic(num_layers=6, num_experts=32, top_k=2, num_tokens=1000)
    problem = Problem(
        Profile.of(generate(tokens), workers=1), Topology.parse("2x2"), 0, constraints=Constraints(load_cap=1.01)
    )
    start = solve(problem, "eplb", limits=Limits(time_s=None), workers=1).plan
    plans = [
        solve(problem, "annealing", limits=Limits(work=7500), seed=seed, start=start, workers=workers).plan
        for workers in (1, 2, 3)
    ]
    assert len({plan.physical_to_logical_map.tobytes() for plan in plans}) == 1
