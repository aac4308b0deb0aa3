"""EPLB: the published example, and what the method refuses."""

import numpy as np
import pytest

from placement import Constraints, Pin, Problem
from solvers import Limits, solve
from solvers.methods.eplb.solver import Eplb, rebalance
from tests.builders.problems import problem_of
from tests.builders.traces import skewed_trace
from traces import InputError

WEIGHT = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
# Two layers of eight experts of very different loads.
SKEWED = skewed_trace(0, 200, 2, 8, 1.6)


def test_published_example() -> None:
    """The README's example: 12 experts in 4 groups, 16 slots, 2 nodes, 8 GPUs, id for id."""
    table = rebalance(WEIGHT, num_slots=16, num_groups=4, num_nodes=2, num_gpus=8)
    assert table.tolist() == [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]
    counts = [np.bincount(row, minlength=12).tolist() for row in table]
    assert counts == [[1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1], [1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1]]


def test_groups_that_do_not_divide_fall_back_to_global() -> None:
    """Three groups on two nodes: the same as one group on one node."""
    mixed = rebalance(WEIGHT, num_slots=16, num_groups=3, num_nodes=2, num_gpus=8)
    assert mixed.tolist() == rebalance(WEIGHT, num_slots=16, num_groups=1, num_nodes=1, num_gpus=8).tolist()


def test_all_bad_sizes_are_reported_at_once() -> None:
    """Slots that don't divide and are too few are two violations of one error."""
    with pytest.raises(InputError) as caught:
        rebalance(WEIGHT, num_slots=11, num_groups=1, num_nodes=1, num_gpus=8)
    assert {item.code for item in caught.value.violations} == {"not_divisible", "more_experts_than_slots"}


def test_hottest_expert_gets_the_replicas() -> None:
    """The expert with the largest load has at least as many replicas as any other."""
    given = problem_of(SKEWED, slots=3)
    table = solve(given, "eplb", limits=Limits(work=1)).plan.physical_to_logical_map
    for load, row in zip(given.profile.load, table, strict=True):
        replicas = np.bincount(row[row >= 0], minlength=8)
        assert replicas[load.argmax()] == replicas.max() > 1


@pytest.mark.parametrize(
    ("solver", "given", "word"),
    [
        (Eplb(), problem_of(SKEWED, slots=3, constraints=Constraints(pins=(Pin(expert=0, gpu=0),))), "pins"),
        (Eplb(num_groups=3), problem_of(SKEWED, slots=3), "3 groups"),
        (Eplb(policy="hierarchical"), problem_of(SKEWED, slots=3), "num_groups"),
        (Eplb(policy="hierarchical", num_groups=4), problem_of(SKEWED, "2+1", 3), "equal nodes"),
    ],
)
def test_what_it_does_not_know_is_refused_with_a_reason(solver: Eplb, given: Problem, word: str) -> None:
    """The reason names what is in the way."""
    assert word in (solver.supports(given) or "")
