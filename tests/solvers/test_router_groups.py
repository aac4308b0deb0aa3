"""Group-limited routing: told from tokens, and never given away by the search."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Objective, Problem, Topology
from solvers import Limits, solve
from solvers.methods.eplb.router_groups import grouped_eplb, router_groups
from solvers.methods.eplb.solver import Eplb
from tests.builders.traces import profile_of
from traces import Profile
from traces.synthetic import Synthetic, generate

LIMITED = Synthetic(num_layers=1, num_experts=128, top_k=8, num_tokens=1500, groups=8, group_limit=3)


def problem(imbalance_weight: float = 0.0, topology: str = "8x4", slots: int = 5) -> Problem:
    """Dispatch with one message per node."""
    travel = Objective(
        execution="dispatch",
        dedup="node",
        replica_policy="same_node",
        imbalance_weight=imbalance_weight,
        load_spread_weight=3.0,
        load_spread_tolerance=0.0088,
    )
    return Problem(profile(), Topology.parse(topology), slots, travel)


@cache
def profile() -> Profile:
    """Return the profile of tokens of limited routers; made by the first test, not by every process that has a part."""
    return profile_of(LIMITED)


@settings(max_examples=25, deadline=None)
@given(
    groups=st.sampled_from([2, 4, 6, 8, 16]),
    size=st.sampled_from([4, 6, 8]),
    limit=st.integers(1, 5),
    top_k=st.integers(2, 8),
    missing=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_groups_are_told_from_tokens(groups: int, size: int, limit: int, top_k: int, missing: bool, seed: int) -> None:
    """The groups that uniform tokens were drawn from are found wherever the limit binds; none where it does not."""
    rng = np.random.default_rng(seed)
    limit = min(limit, groups)
    top_k = min(top_k, limit * size)
    chosen = rng.random((3000, groups)).argsort(axis=1)[:, :limit]
    experts = (chosen[:, :, None] * size + np.arange(size)).reshape(3000, -1)
    ids = np.take_along_axis(experts, rng.random(experts.shape).argsort(axis=1)[:, :top_k], axis=1)[:, None, :]
    if missing:
        ids[rng.random(ids.shape) < 0.05] = -1
    found = router_groups(ids, groups * size)
    if limit < min(groups, top_k):
        # Groups finer than the router's may leave a token as few experts, if it can't use all of them.
        assert found is not None
        assert found[1] * size * groups // found[0] <= limit * size
    else:
        assert found is None or found[0] > groups


def test_known_routers() -> None:
    """Of generated traces of DeepSeek-V3's and V2's kind, and of one without groups; too few tokens tell nothing."""
    for experts, top_k, groups, limit in ((256, 8, 8, 4), (160, 6, 8, 3)):
        made = Synthetic(
            num_layers=2, num_experts=experts, top_k=top_k, num_tokens=2000, groups=groups, group_limit=limit
        )
        sample = Profile.of(generate(made), workers=1).sample
        assert sample is not None
        assert router_groups(sample.topk_ids, experts) == (groups, limit)
        assert router_groups(sample.topk_ids[:100], experts) is None
    free = Profile.of(generate(Synthetic(num_layers=2, num_experts=64, top_k=6, num_tokens=2000)), workers=1).sample
    assert free is not None
    assert router_groups(free.topk_ids, 64) is None


def test_eplb_by_groups_needs_nodes_that_they_divide_by() -> None:
    """Groups are dealt out to 2, 4 or 8 nodes, not to 3, and mean nothing on one."""
    assert grouped_eplb(problem()) == Eplb(policy="hierarchical", num_groups=8)
    assert grouped_eplb(problem(topology="3x4", slots=11)) is None
    assert grouped_eplb(problem(topology="1x32")) is None


@pytest.mark.parametrize("solver", ["annealing", "auto"])
@pytest.mark.parametrize("weight", [0.0, 0.3, 30.0])
@pytest.mark.parametrize("work", [20, 2000, 130_000])
def test_search_is_never_worse_than_hierarchical_eplb(solver: str, weight: float, work: int) -> None:
    """Whatever the price of balance, and however short the search."""
    grouped = problem(weight)
    baseline = solve(grouped, Eplb(policy="hierarchical", num_groups=8)).plan.score
    found = solve(grouped, solver, limits=Limits(work=work)).plan.score
    assert baseline is not None
    assert found is not None
    assert found <= baseline + 1e-12


def test_one_layer_without_a_limit_is_enough_to_say_no() -> None:
    """A router treats all layers alike."""
    rng = np.random.default_rng(0)
    first = next(iter(generate(LIMITED).batches())).topk_ids[:, 0]
    free = rng.random((len(first), 128)).argsort(axis=1)[:, :8]
    assert router_groups(first[:, None], 128) == (8, 3)
    assert router_groups(np.stack([first, free], axis=1), 128) is None
