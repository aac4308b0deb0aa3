"""The portfolio: how it deals out its time, and that it proves as well as searches."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement import Objective, Problem, lower_bound
from solvers import Limits, solve
from solvers.arrange.relabel import Relabelling
from solvers.methods.auto import Auto, has_time_for_bounds, search_share
from solvers.solving.warm_up import warm_up
from tests.builders.problems import problem_of
from traces.synthetic import Synthetic


def problem(topology: str, layers: int = 4, experts: int = 16) -> Problem:
    """Return a chain with affinity that no exact method of the portfolio takes."""
    made = Synthetic(num_layers=layers, num_experts=experts, top_k=2, num_tokens=4000, seed=3, tokens_per_sequence=64)
    return problem_of(made, topology)


def test_short_searches_search_and_long_ones_prove() -> None:
    """At ten seconds the bound gets a tenth, at a minute half; more time never means a larger share for the search."""
    assert search_share(10.0) == pytest.approx(0.9)
    assert search_share(60.0) == pytest.approx(0.5)
    shares = [search_share(seconds) for seconds in (0.1, 1, 5, 10, 30, 60, 600, 86_400)]
    assert shares == sorted(shares, reverse=True)
    assert 0 < shares[-1] < shares[0] < 1


def test_half_a_minute_of_a_hard_problem_is_for_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large, with redundant experts: no bound is tried, nor compiled before the clock starts."""
    made = Synthetic(num_layers=2, num_experts=8, top_k=2, num_tokens=200)
    dispatch = Objective(execution="dispatch", dedup="gpu")
    hard, spareless = problem_of(made, "1x4", 3, dispatch), problem_of(made, "1x4", 2, dispatch)
    assert has_time_for_bounds(hard, 1.0)  # it is small
    monkeypatch.setattr("solvers.methods.auto.LARGE", 0)
    assert [has_time_for_bounds(hard, seconds) for seconds in (1.0, 30.0, 31.0, None)] == [False, False, True, True]
    assert has_time_for_bounds(spareless, 1.0)
    monkeypatch.setattr("solvers.solving.warm_up._done", set())
    monkeypatch.setattr("solvers.solving.warm_up.raise_bound", None)
    monkeypatch.setattr("solvers.bounds.raise_bound", None)
    warm_up(hard, Auto(), 1.0)


def test_bound_is_above_the_instant_one() -> None:
    """The portfolio raises the bound, and the plan's gap is that of its score and bound."""
    made = problem("1x4")
    plan = solve(made, "auto", limits=Limits(work=2_000_000), workers=2).plan
    instant = lower_bound(made)
    assert instant is not None
    assert plan.bound is not None
    assert plan.score is not None
    assert plan.bound > instant * 1.02
    assert plan.gap == pytest.approx((plan.score - plan.bound) / plan.score)


def test_gap_ends_the_search() -> None:
    """A gap that the bound can close ends the search long before its time."""
    found = solve(problem("1x2"), "auto", limits=Limits(time_s=30, gap=0.3))
    assert found.termination.limit == "gap"
    assert found.plan.gap is not None
    assert found.plan.gap <= 0.3
    assert found.elapsed_s < 25


def test_search_goes_on_from_the_best_plan_when_nothing_more_is_proven() -> None:
    """Where the bound ends early, time is spent until a limit is reached."""
    found = solve(problem("2x2", layers=2), "auto", limits=Limits(time_s=3))
    assert found.termination.limit == "time" or found.termination.reason == "optimal"


def test_there_is_a_plan_even_if_the_bound_takes_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a huge machine the instant bound is not so instant; the first baseline runs after it all the same."""

    def slow(asked: Problem) -> float:
        time.sleep(0.2)
        return lower_bound(asked)

    monkeypatch.setattr("solvers.solving.solving.lower_bound", slow)
    found = solve(problem("1x4"), "auto", limits=Limits(time_s=0.1))
    assert found.termination.limit == "time"
    assert found.plan.provenance["found_by"] == "contiguous"


def test_stall_ends_a_search_without_a_time_limit() -> None:
    """Half a second without a better plan is enough, if asked."""
    found = solve(problem("1x4"), "auto", limits=Limits(stall_s=0.5))
    assert found.termination.limit == "no_improvement"


def test_sweeps_on_threads_give_the_same_plan() -> None:
    """Layers of large models are placed at once, and it makes no difference by how many threads."""
    made = problem("1x4", layers=5, experts=64)
    tables = [
        solve(made, "assignment", limits=Limits(work=2000), seed=1, workers=workers).plan.physical_to_logical_map
        for workers in (1, 2, 3)
    ]
    for one, other in itertools.pairwise(tables):
        assert np.array_equal(one, other)


@given(seed=st.integers(0, 2**32), nodes=st.sampled_from([2, 4, 6, 9]))
def test_names_of_blocks_cost_what_is_said_and_no_more_than_no_renaming(seed: int, nodes: int) -> None:
    """With few nodes and with many, the cost is that of the names, and never above that of the names as they are."""
    rng = np.random.default_rng(seed)
    size = 2 * nodes
    traffic = rng.random((size, size)) ** 4
    node = np.arange(size) // 2
    hop = np.where(node[:, None] == node, 0.3, 1.0) * (1 - np.eye(size))
    cost, name = Relabelling(nodes=nodes, per_node=2, near=0.3, far=1.0).best(traffic)
    assert sorted(name.tolist()) == list(range(size))
    assert cost == pytest.approx((traffic * hop[:, name]).sum())
    assert cost <= (traffic * hop).sum() + 1e-9
