"""`load_balance`: never less balanced than EPLB, replicas apart, known optima."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement import Constraints, Group, Objective, Pin, Topology
from placement.plan.plan import replicas_on_gpu
from solvers import Limits, solve
from solvers.arrange.conform import separate_replicas
from solvers.methods.eplb import solver as eplb
from solvers.methods.load_balance import solver as load_balance
from solvers.methods.load_balance.solver import LoadBalance
from tests.builders.problems import problem_of
from tests.builders.traces import skewed_trace
from traces import InputError

Floats = npt.NDArray[np.float64]
TOLERANCE = 1e-9
BALANCE = Objective(imbalance_weight=1.0, traffic_weight=0.0, load_spread_weight=0.0)
# Two layers of eight experts of very different loads.
SKEWED = skewed_trace(0, 400, 2, 8, 1.6)


def loads(seed: int) -> tuple[Floats, int, int]:
    """Return loads (2, E), some of them equal or zero, the number of slots, and that of GPUs."""
    rng = np.random.default_rng(seed)
    experts, gpus = int(rng.integers(1, 25)), int(rng.integers(1, 9))
    per_gpu = -(-experts // gpus) + int(rng.integers(0, 4))
    weight = rng.integers(0, rng.choice([4, 100, 10_000]), (2, experts)).astype(np.float64)
    return weight ** int(rng.choice([1, 2, 3])), gpus * per_gpu, gpus


def largest(weight: npt.NDArray[Any], table: npt.NDArray[np.integer], gpus: int, fair: Floats | None = None) -> Floats:
    """Return the largest GPU load of each layer, relative to `fair` if given."""
    replicas = replicas_on_gpu(table, weight.shape[1], gpus)
    load = np.einsum("le,leg->lg", weight, replicas / replicas.sum(axis=2, keepdims=True))
    top: Floats = (load if fair is None else load / fair).max(axis=1)
    return top


@given(st.integers(0, 10**6))
def test_no_layer_is_less_balanced_than_with_eplb(seed: int) -> None:
    """EPLB's plan, its second replicas on a GPU separated, has at least as large a largest load in every layer."""
    weight, slots, gpus = loads(seed)
    table = load_balance.rebalance(weight, num_slots=slots, num_gpus=gpus)
    theirs = eplb.rebalance(weight, num_slots=slots, num_groups=1, num_nodes=1, num_gpus=gpus)
    apart = separate_replicas(theirs, weight, gpus)
    assert (largest(weight, table, gpus) <= largest(weight, apart, gpus) * (1 + TOLERANCE)).all()


@given(st.integers(0, 10**6), st.integers(0, 4))
def test_every_expert_is_there_and_no_gpu_holds_one_twice(seed: int, retries: int) -> None:
    """Each expert has a replica, and each GPU at most one of it."""
    weight, slots, gpus = loads(seed)
    table = load_balance.rebalance(weight, num_slots=slots, num_gpus=gpus, retries=retries)
    replicas = replicas_on_gpu(table, weight.shape[1], gpus)
    assert replicas.sum(axis=2).all()
    assert replicas.max() == 1


@given(st.integers(0, 10**6))
def test_more_retries_do_not_hurt(seed: int) -> None:
    """A retry only replaces what it beats."""
    weight, slots, gpus = loads(seed)
    few, many = (load_balance.rebalance(weight, num_slots=slots, num_gpus=gpus, retries=retries) for retries in (0, 6))
    assert (largest(weight, many, gpus) <= largest(weight, few, gpus) * (1 + TOLERANCE)).all()


@given(st.integers(0, 10**6))
def test_threads_and_repetition_change_nothing(seed: int) -> None:
    """The same map on any number of threads."""
    weight, slots, gpus = loads(seed)
    first, again, threaded = (
        load_balance.rebalance(weight, num_slots=slots, num_gpus=gpus, workers=workers) for workers in (1, 1, 3)
    )
    assert first.tolist() == again.tolist() == threaded.tolist()


def optimum(weight: Floats, slots: int, gpus: int) -> float:
    """Return the least largest load of a layer, by enumeration of the GPUs that may hold each expert."""
    holders = [list(mask) for mask in itertools.product((0, 1), repeat=gpus) if any(mask)]
    best = np.inf
    for choice in itertools.product(holders, repeat=len(weight)):
        replicas = np.array(choice)
        if replicas.sum(axis=0).max() <= slots // gpus:
            best = min(best, float((weight @ (replicas / replicas.sum(axis=1, keepdims=True))).max()))
    return best


def test_two_slots_per_gpu_without_spare_ones_are_packed_optimally() -> None:
    """Six experts on three GPUs: the heaviest with the lightest, which is the optimum found by enumeration."""
    rng = np.random.default_rng(3)
    weight = rng.integers(1, 1000, (12, 6)).astype(float)
    table = load_balance.rebalance(weight, num_slots=6, num_gpus=3)
    best = [optimum(row, 6, 3) for row in weight]
    assert largest(weight, table, 3) == pytest.approx(best)


def test_never_below_the_optimum_and_often_there() -> None:
    """Four experts in six or eight slots on two to four GPUs: none below the enumerated optimum, most at it."""
    weight = np.random.default_rng(5).integers(1, 1000, (12, 4)) ** 2.0
    hits = 0
    for slots, gpus in ((6, 2), (6, 3), (8, 4)):
        reached = largest(weight, load_balance.rebalance(weight, num_slots=slots, num_gpus=gpus, retries=8), gpus)
        best = np.array([optimum(row, slots, gpus) for row in weight])
        assert (reached >= best * (1 - TOLERANCE)).all()
        hits += int((reached <= best * (1 + TOLERANCE)).sum())
    assert hits >= 27, f"{hits} of 36"


def test_planted_perfect_split_is_found() -> None:
    """Two hot experts on four GPUs with a slot for each, and equal cold ones beside them: perfectly balanced."""
    weight = np.array([[40.0, 40, 3, 3, 3, 3]])
    table = load_balance.rebalance(weight, num_slots=12, num_gpus=4)
    assert largest(weight, table, 4).tolist() == pytest.approx([23.0])


def test_a_hot_expert_gets_all_gpus_where_only_replicas_help() -> None:
    """One expert has all the load: its replicas on all GPUs split it evenly."""
    table = load_balance.rebalance([[1000, 0, 0, 0]], num_slots=8, num_gpus=4)
    assert largest(np.array([[1000.0, 0, 0, 0]]), table, 4).tolist() == [250.0]


def test_faster_gpus_get_more_load() -> None:
    """Loads are balanced relative to fair shares: below what the same plan for equal GPUs would give."""
    fast = problem_of(SKEWED, Topology.of((4,), speed=[1.0, 1.0, 2.0, 2.0]), 3, BALANCE)
    plan = solve(fast, "load_balance", limits=Limits(work=1)).plan
    unaware = solve(problem_of(SKEWED, "1x4", 3, BALANCE), "load_balance", limits=Limits(work=1)).plan
    fair, load = fast.topology.fair_share, fast.profile.load
    mine, other = (
        largest(load, found.physical_to_logical_map, 4, fair * load.sum(axis=1, keepdims=True))
        for found in (plan, unaware)
    )
    assert (mine <= other).all()
    assert (mine < other).any()


def test_gpus_with_fewer_slots_keep_to_them() -> None:
    """Uneven slots are supported; nothing is put where there is no room."""
    uneven = problem_of(SKEWED, Topology.of((4,), slots=[1, 3, 2, 3]), 3, BALANCE)
    table = solve(uneven, "load_balance", limits=Limits(work=1)).plan.physical_to_logical_map
    used = (table.reshape(2, 4, 3) >= 0).sum(axis=2)
    assert (used <= [1, 3, 2, 3]).all()


@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(pins=(Pin(expert=0, gpu=0),)),
        Constraints(forbidden=(Pin(expert=0, gpu=0),)),
        Constraints(groups=(Group(experts=(0, 1)),)),
    ],
)
def test_constraints_that_it_does_not_know_are_refused(constraints: Constraints) -> None:
    """The reason names them."""
    assert "pins, exclusions or groups" in (
        LoadBalance().supports(problem_of(SKEWED, "1x4", 3, BALANCE, constraints)) or ""
    )


def test_bad_arguments_are_refused() -> None:
    """Loads that are no matrix; all wrong sizes at once; retries out of range."""
    with pytest.raises(InputError, match="finite loads"):
        load_balance.rebalance([1.0, 2.0], num_slots=2, num_gpus=1)
    with pytest.raises(InputError) as caught:
        load_balance.rebalance(np.ones((1, 12)), num_slots=11, num_gpus=8)
    assert {item.code for item in caught.value.violations} == {"not_divisible", "more_experts_than_slots"}
    with pytest.raises(InputError, match="-1 retries"):
        LoadBalance(retries=-1)
