"""GRACE-MoE's placement: spectral groups of bounded sizes, and replicas that follow the skew."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, Objective, Pin, Problem, Topology, evaluate
from placement.cost.feasibility import broken_constraints
from placement.plan.plan import replicas_on_gpu
from solvers import Limits, solve
from solvers.methods.grace.solver import Grace, group_sizes, replicas_by_skew
from solvers.methods.grace.spectral import embed, group, kept_weight
from traces import InputError, Profile, Trace
from traces.synthetic import Synthetic, generate

Ints = npt.NDArray[np.int64]
DISPATCH = Objective(execution="dispatch", dedup="gpu")
ONCE = Limits(work=1)


def planted(teams: int, size: int, layers: int = 3, noise: float = 0.1, seed: int = 0) -> tuple[Profile, Ints]:
    """Return a profile of top-2 tokens that use two experts of one team, but for noise, and the teams (L, E)."""
    rng = np.random.default_rng(seed)
    experts = teams * size
    team = np.stack([rng.permutation(np.arange(experts) % teams) for _ in range(layers)])
    ids = np.empty((2000, layers, 2), np.int64)
    for token, layer in itertools.product(range(len(ids)), range(layers)):
        members = np.arange(experts) if rng.random() < noise else np.flatnonzero(team[layer] == rng.integers(teams))
        ids[token, layer] = rng.choice(members, 2, replace=False)
    return Profile.of(Trace.of(ids, num_experts=experts)), team


def skewed(slots: int, topology: str = "1x4", **options: Any) -> tuple[Problem, npt.NDArray[np.int64]]:
    """Return a problem whose loads fall steeply, and the replicas (L, E, G) of its plan."""
    trace = generate(Synthetic(num_layers=3, num_experts=16, top_k=2, num_tokens=3000, skew=1.2, balance=1.0))
    problem = Problem(Profile.of(trace), Topology.parse(topology), slots, objective=DISPATCH)
    table = solve(problem, Grace(**options), limits=ONCE).plan.physical_to_logical_map
    return problem, replicas_on_gpu(table, problem.num_experts, problem.num_gpus)


def same_partition(one: Ints, other: Ints) -> bool:
    """Whether two labellings (n,) are the same up to names."""
    return bool(((one[:, None] == one) == (other[:, None] == other)).all())


@pytest.mark.parametrize("topology", ["1x4", "2x2", "4x1"])
def test_planted_groups_are_recovered(topology: str) -> None:
    """Experts of a team share a GPU, on one node and on several."""
    profile, team = planted(teams=4, size=4)
    problem = Problem(profile, Topology.parse(topology), objective=DISPATCH)
    for layer in range(3):
        gpu = Grace().groups(problem, layer, np.random.default_rng(0))
        assert same_partition(gpu, team[layer])


def test_nodes_come_first() -> None:
    """Teams that are used together share a node: each token uses two teams of one half."""
    rng = np.random.default_rng(3)
    order = rng.permutation(16)  # team = place // 4, half = place // 8
    half, pair = rng.integers(2, size=4000), rng.random(4000) < 0.7
    first = rng.integers(8, size=4000)
    same_team = first // 4 * 4 + (first + rng.integers(1, 4, 4000)) % 4
    second = np.where(pair, same_team, (first + rng.integers(1, 8, 4000)) % 8)
    ids = order[half[:, None] * 8 + np.stack([first, second], axis=1)]
    problem = Problem(Profile.of(Trace.of(ids[:, None, :], num_experts=16)), Topology.parse("2x2"), objective=DISPATCH)
    gpu = Grace().groups(problem, 0, np.random.default_rng(0))
    place = np.empty(16, np.int64)
    place[order] = np.arange(16)
    assert same_partition(gpu // 2, place // 8)
    assert same_partition(gpu, place // 4)


def test_uneven_teams_are_recovered_where_slots_allow() -> None:
    """Six and four experts that belong together stay together with room for it, and are cut without."""
    weight = np.zeros((10, 10))
    weight[:6, :6] = weight[6:, 6:] = 1.0
    team = np.repeat([0, 1], [6, 4])
    rng = np.random.default_rng(0)
    assert same_partition(group(weight, *group_sizes(10, (1, 1), 6, 0.25), rng), team)
    assert np.bincount(group(weight, *group_sizes(10, (1, 1), 5, 0.25), rng)).tolist() == [5, 5]
    assert np.bincount(group(weight, *group_sizes(10, (1, 1), 6, 0.0), rng)).tolist() == [5, 5]


@settings(max_examples=60)
@given(data=st.data())
def test_group_sizes_are_kept(data: st.DataObject) -> None:
    """Sizes stay within the slots and around equal shares, and every group has them."""
    gpus = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    slots = data.draw(st.integers(1, 4))
    experts = data.draw(st.integers(1, slots * sum(gpus)))
    unevenness, seed = data.draw(st.floats(0, 1)), data.draw(st.integers(0, 10**6))
    low, high = group_sizes(experts, gpus, slots, unevenness)
    share = experts * np.array(gpus) / sum(gpus)
    assert (high <= slots * np.array(gpus)).all()
    assert (low >= np.floor(share * (1 - unevenness)) - 1).all()
    assert (high <= np.ceil(share) * (1 + unevenness)).all()
    rng = np.random.default_rng(seed)
    weight = rng.integers(0, 3, (experts, experts)) * 1.0
    sizes = np.bincount(group(weight + weight.T, low, high, rng), minlength=len(gpus))
    assert (low <= sizes).all()
    assert (sizes <= high).all()


def test_embedding_separates_components() -> None:
    """Vertices of one component have the same direction, those of two have perpendicular ones."""
    weight = np.zeros((6, 6))
    weight[:3, :3] = weight[3:, 3:] = 2.0
    points = embed(weight, 2)
    assert np.allclose(points @ points.T, np.kron(np.eye(2), np.ones((3, 3))), atol=1e-9)


def test_kept_weight_counts_pairs_twice_and_no_diagonal() -> None:
    """Three vertices, two together."""
    weight = np.array([[9.0, 2.0, 1.0], [2.0, 9.0, 1.0], [1.0, 1.0, 9.0]])
    assert kept_weight(weight, np.array([0, 0, 1])) == 4.0


@pytest.mark.parametrize(("topology", "slots"), [("1x4", 4), ("1x4", 6), ("2x2", 5), ("2+1", 6), ("2+1", 7)])
def test_plans_are_valid_and_balanced(topology: str, slots: int) -> None:
    """Every expert is placed, no GPU holds one twice or more than its slots, and equal slots are filled equally."""
    problem, replicas = skewed(slots, topology)
    table = solve(problem, "grace", limits=ONCE).plan.physical_to_logical_map
    assert broken_constraints(problem, table).found == []
    assert replicas.max() == 1
    if problem.num_slots == problem.num_experts:
        assert (replicas.sum(axis=1) == slots).all()
        assert (replicas.sum(axis=2) == 1).all()


def test_only_hot_experts_of_overloaded_gpus_are_copied() -> None:
    """An expert with replicas has more than the mean load, and its GPU was above its fair share."""
    problem, replicas = skewed(6)
    copied = replicas.sum(axis=2) > 1
    assert copied.any()
    load = problem.relative_load
    assert (load[copied] > 1 / problem.num_experts).all()
    for layer in range(problem.num_layers):
        gpu = Grace().groups(problem, layer, np.random.default_rng([0, layer]))
        before = np.bincount(gpu, weights=load[layer], minlength=4) * 4
        assert before[gpu[copied[layer]]].max() == before.max() > 1.05
        after = (load[layer] / replicas[layer].sum(axis=1)) @ replicas[layer] * 4
        assert after.max() < before.max()


@settings(max_examples=100)
@given(seed=st.integers(0, 10**6), gpus=st.integers(1, 5), slots=st.integers(2, 6), skew=st.floats(0, 2))
def test_replicas_never_raise_the_largest_load(seed: int, gpus: int, slots: int, skew: float) -> None:
    """Experts stay where they are, slots are kept, only hot experts are copied, and the busiest GPU gains or stays."""
    rng = np.random.default_rng(seed)
    experts = int(rng.integers(1, gpus * slots + 1))
    gpu = rng.permutation(np.repeat(np.arange(gpus), slots))[:experts]
    load = rng.permutation(np.arange(1, experts + 1.0) ** -skew)
    load /= load.sum()
    fair = rng.random(gpus) + 0.2
    fair /= fair.sum()
    held = replicas_by_skew(gpu, load, fair, 0.05, slots=slots)
    assert held[np.arange(experts), gpu].all()
    assert held.sum(axis=0).max() <= slots
    copied = held.sum(axis=1) > 1
    assert (load[copied] > 1 / experts).all()
    before = np.bincount(gpu, weights=load, minlength=gpus) / fair
    after = (load / held.sum(axis=1)) @ held / fair
    assert after.max() <= before.max() * (1 + 1e-12)


def test_no_replicas_without_skew() -> None:
    """Spare slots stay empty where every GPU has its share."""
    held = replicas_by_skew(np.array([0, 0, 1, 1]), np.full(4, 0.25), np.full(2, 0.5), 0.05, slots=4)
    assert held.sum() == 4


def test_more_skew_gets_more_replicas() -> None:
    """The number of replicas follows the load of the hottest expert."""
    counts = []
    for hottest in (0.125, 0.2, 0.4, 0.7):
        load = np.r_[hottest, np.full(7, (1 - hottest) / 7)]
        held = replicas_by_skew(np.arange(8) // 2, load, np.full(4, 0.25), 0.05, slots=4)
        counts.append(int(held[0].sum()))
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[-1] == 4


def test_replicas_go_to_the_least_loaded_gpu() -> None:
    """One overloaded GPU, one idle one: the hot expert's replica is there, and load is what a fast GPU makes of it."""
    load = np.array([0.6, 0.05, 0.2, 0.1, 0.05])
    gpu = np.array([0, 0, 1, 1, 2])
    held = replicas_by_skew(gpu, load, np.full(3, 1 / 3), 0.05, slots=3)
    assert held[0].tolist() == [True, False, True]
    fast = replicas_by_skew(gpu, load, np.array([0.6, 0.3, 0.1]), 0.1, slots=3)
    assert fast.sum() == 5


def test_fewer_gpus_per_token_than_in_order() -> None:
    """Where the router's groups are not in order, held-out tokens need fewer GPUs than with experts in order."""
    params = Synthetic(num_layers=3, num_experts=32, top_k=4, num_tokens=8000, groups=4, group_limit=1, seed=2)
    names = np.stack([np.random.default_rng(layer).permutation(32) for layer in range(3)])
    ids = np.concatenate([batch.topk_ids for batch in generate(params).read(10_000)])
    ids = names[np.arange(3)[None, :, None], ids]
    fit, held = Trace.of(ids[:4000], num_experts=32), Trace.of(ids[4000:], num_experts=32)
    problem = Problem(Profile.of(fit), Topology.parse("1x4"), objective=DISPATCH)
    plans = {name: solve(problem, name, limits=ONCE).plan for name in ("contiguous", "grace")}
    fanout = {name: evaluate(plan, held, problem.topology).fanout_gpus for name, plan in plans.items()}
    assert fanout["contiguous"] > 2.5
    assert fanout["grace"] == 1.0


def test_what_it_cannot_take_is_refused() -> None:
    """Counts, one expert per token, and constraints on places each have their reason."""
    profile, _ = planted(teams=2, size=2, layers=1)
    counts = dataclasses.replace(profile, coactivation=None, affinity=None, sample=None)
    no_dedup = Objective(execution="dispatch", dedup="none")
    flat = Topology.parse("1x2")
    assert "tokens" in (Grace().supports(Problem(counts, flat, objective=no_dedup)) or "")
    single = Profile.of(Trace.of(np.zeros((5, 1, 1), np.int64), num_experts=4))
    assert "one expert per token" in (Grace().supports(Problem(single, flat, objective=DISPATCH)) or "")
    pinned = Constraints(pins=(Pin(expert=0, gpu=0),))
    assert "pins" in (Grace().supports(Problem(profile, flat, objective=DISPATCH, constraints=pinned)) or "")
    assert Grace().supports(Problem(profile, flat, objective=DISPATCH)) is None


@pytest.mark.parametrize("options", [{"unevenness": 1.5}, {"skew_tolerance": -0.1}, {"restarts": 0}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    """Options out of range are refused by name."""
    with pytest.raises(InputError, match=next(iter(options))):
        Grace(**options)
