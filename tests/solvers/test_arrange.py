"""From wanted GPUs to a map that keeps the constraints."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement import Constraints, Group, Pin, Problem, Topology
from placement.cost.feasibility import broken_constraints
from placement.plan.plan import replicas_on_gpu
from solvers import NoPlanError
from solvers.arrange.conform import conform, pack, separate_replicas
from tests.builders.problems import problem_of
from traces import Profile, Trace

# Two layers of eight experts, all used equally.
EVEN = Trace.of(np.arange(32).reshape(16, 2, 1) % 8, num_experts=8)


def test_pack_sorts_experts_within_a_gpu() -> None:
    """One plan has one map: ids rise within a GPU, empty slots come last."""
    assert pack(np.array([[3, 1, 2, -1]]), np.array([[0, 1, 0, 0]]), 2, 3).tolist() == [[2, 3, -1, 1, -1, -1]]


@given(st.lists(st.integers(0, 3), min_size=16, max_size=16))
def test_conform_keeps_all_that_fit(wanted: list[int]) -> None:
    """Any wish becomes a valid map, and as many experts as fit stay where they were wanted."""
    given_problem, gpu = problem_of(EVEN), np.array(wanted).reshape(2, 8)
    table = conform(given_problem, gpu)
    assert broken_constraints(given_problem, table).found == []
    placed = replicas_on_gpu(table, 8, 4).argmax(axis=2)
    fitting = np.minimum(np.stack([np.bincount(row, minlength=4) for row in gpu]), 2).sum()
    assert (placed == gpu).sum() == fitting


def test_conform_makes_the_replicas_that_pins_ask_for() -> None:
    """An expert that is pinned to two GPUs is on both."""
    constraints = Constraints(
        pins=(Pin(expert=0, gpu=1), Pin(expert=0, gpu=3)), groups=(Group(experts=(4, 5), layer_id=1),)
    )
    asked = problem_of(EVEN, slots=3, constraints=constraints)
    table = conform(asked, np.zeros((2, 8), int))
    assert broken_constraints(asked, table).found == []
    assert replicas_on_gpu(table, 8, 4)[:, 0].tolist() == [[0, 1, 0, 1]] * 2


@pytest.mark.parametrize(
    ("topology", "slots", "constraints"),
    [
        # The larger group fits either node; an exclusion leaves one.
        (
            "2x1",
            4,
            Constraints(groups=(Group(experts=(0, 1, 4, 5)), Group(experts=(2, 3))), forbidden=(Pin(expert=2, gpu=1),)),
        ),
        # Bin packing: 3 + 3 and 2 only fit as 3 + 2 and 3.
        ("2x1", 5, Constraints(groups=tuple(Group(experts=e) for e in ((0, 1, 2), (3, 4, 5), (6, 7))))),
        # Packing 2 + 2 + 4, where filling up with the smaller ones first fails.
        ("2x2", 2, Constraints(groups=tuple(Group(experts=e) for e in ((0, 1), (2, 3), (4, 5, 6, 7))))),
    ],
)
def test_conform_finds_the_nodes_of_groups(topology: str, slots: int, constraints: Constraints) -> None:
    """Where the quick choice of nodes fails, the exact model finds the arrangement that exists."""
    given_problem = problem_of(EVEN, topology, slots, constraints=constraints)
    table = conform(given_problem, np.zeros((2, 8), int))
    assert broken_constraints(given_problem, table).found == []


def test_groups_that_need_bin_packing_are_placed() -> None:
    """Groups of 3, 3, 2, 2 and 2 fill two nodes of six slots as 3 + 3 and 2 + 2 + 2 only."""
    ids = np.arange(48).reshape(24, 2, 1) % 12
    groups = tuple(Group(experts=e) for e in ((0, 1, 2), (6, 7), (3, 4, 5), (8, 9), (10, 11)))
    packed = Problem(
        Profile.of(Trace.of(ids, num_experts=12)), Topology.parse("2x1"), 6, constraints=Constraints(groups=groups)
    )
    table = conform(packed, np.tile(np.array([0] * 3 + [1] * 3 + [0] * 3 + [1] * 3), (2, 1)))
    assert broken_constraints(packed, table).found == []


def test_conform_says_when_there_is_no_arrangement() -> None:
    """Three experts that may only be on a GPU with two slots."""
    only_gpu_0 = tuple(Pin(expert=e, gpu=g) for e in range(3) for g in (1, 2, 3))
    with pytest.raises(NoPlanError) as caught:
        conform(problem_of(EVEN, constraints=Constraints(forbidden=only_gpu_0)), np.zeros((2, 8), int))
    assert caught.value.termination.reason == "no_plan"


@given(st.integers(0, 10**6))
def test_separate_replicas_leaves_no_gpu_with_two(seed: int) -> None:
    """Second replicas on a GPU go elsewhere, no expert is lost, none appears."""
    rng = np.random.default_rng(seed)
    table = rng.permuted(np.concatenate([np.tile(np.arange(8), (2, 1)), rng.integers(0, 8, (2, 4))], axis=1), axis=1)
    result = separate_replicas(table, rng.random((2, 8)) + 0.1, 4)
    replicas = replicas_on_gpu(result, 8, 4)
    assert replicas.max() == 1
    assert replicas.sum(axis=2).min() >= 1
    assert (replicas.sum(axis=2) <= replicas_on_gpu(table, 8, 4).sum(axis=2)).all()
