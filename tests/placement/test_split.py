"""The best split of tokens over replicas: its duality with density, by enumeration, and its place in evaluations."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement import Constraints, Plan, Problem, Topology, evaluate, optimal_split
from placement.cost.shares import expected_gpu_load
from placement.plan.plan import replicas_on_gpu
from tests.builders.problems import dispatch, problem_of
from tests.builders.traces import skewed_trace
from traces import InputError, Trace

TOLERANCE = 1e-7  # that of the solver for linear programs

Table = npt.NDArray[np.int64]


def case(seed: int) -> tuple[Problem, Table]:
    """Return a problem of two layers on up to four GPUs of different speeds, and a random map with replicas."""
    rng = np.random.default_rng(seed)
    experts, gpus = int(rng.integers(1, 8)), int(rng.integers(1, 5))
    slots = -(-experts // gpus) + int(rng.integers(0, 4))
    trace = skewed_trace(rng, 60, 2, experts, 1.5)
    speed = rng.choice([1.0, 1.5, 4.0], gpus)
    problem = problem_of(
        trace,
        Topology.of((gpus,), speed=speed.tolist()),
        slots,
        objective=dispatch(dedup="none"),
        constraints=Constraints(distinct_replicas=False),
    )
    rest = rng.integers(-1, experts, (2, gpus * slots - experts))
    table = rng.permuted(np.concatenate([np.tile(np.arange(experts), (2, 1)), rest], axis=1), axis=1)
    return problem, table


def density(problem: Problem, table: Table) -> list[float]:
    """Return, per layer, the largest load of experts that live inside a set of GPUs only, by the set's fair share."""
    replicas = replicas_on_gpu(table, problem.num_experts, problem.num_gpus) > 0
    fair, gpus = problem.topology.fair_share, range(problem.num_gpus)
    sets = [list(some) for size in gpus for some in itertools.combinations(gpus, size + 1)]
    result = []
    for load, here in zip(problem.relative_load, replicas, strict=True):
        outside = [np.delete(here, some, axis=1).any(axis=1) for some in sets]
        result.append(max(load[~away].sum() / fair[some].sum() for away, some in zip(outside, sets, strict=True)))
    return result


@given(st.integers(0, 10**6))
def test_largest_load_is_the_largest_density_of_a_set_of_gpus(seed: int) -> None:
    """Duality, against enumeration of all sets."""
    problem, table = case(seed)
    assert optimal_split(problem, table).max_load == pytest.approx(density(problem, table), abs=TOLERANCE)


@given(st.integers(0, 10**6))
def test_shares_are_a_split_and_give_the_load(seed: int) -> None:
    """Not negative, on replicas only, summing to 1; the loads that follow have the stated maximum."""
    problem, table = case(seed)
    split = optimal_split(problem, table)
    replicas = replicas_on_gpu(table, problem.num_experts, problem.num_gpus)
    assert (split.share >= 0).all()
    assert not split.share[replicas == 0].any()
    assert split.share.sum(axis=2) == pytest.approx(1)
    load = np.einsum("le,leg->lg", problem.relative_load, split.share) / problem.topology.fair_share
    assert load.max(axis=1) == pytest.approx(split.max_load)


@given(st.integers(0, 10**6))
def test_no_worse_than_equal_shares(seed: int) -> None:
    """The fair replica policy is one of the splits."""
    problem, table = case(seed)
    replicas = replicas_on_gpu(table, problem.num_experts, problem.num_gpus)
    fair = expected_gpu_load(problem, replicas).max(axis=1)
    assert (optimal_split(problem, table).max_load <= fair + TOLERANCE).all()


def small(table: list[list[int]], counts: list[int]) -> tuple[Problem, Table]:
    """Return a problem of one layer with these loads on two GPUs, and a map."""
    ids = np.repeat(np.arange(len(counts)), counts)[:, None, None]
    trace = Trace.of(ids, num_experts=len(counts))
    return problem_of(trace, "1x2", len(table[0]) // 2), np.array(table)


def test_a_replica_evens_out_what_equal_shares_do_not() -> None:
    """Loads 6, 4 and 2: the expert of 6 gives a third to the GPU with 4 and two thirds to that with 2."""
    split = optimal_split(*small([[0, 1, 0, 2]], [6, 4, 2]))
    assert split.share[0, 0].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert split.max_load.tolist() == pytest.approx([1.0])


def test_without_replicas_there_is_nothing_to_split() -> None:
    """Shares are 0 and 1."""
    split = optimal_split(*small([[0, 1, 2, -1]], [6, 4, 2]))
    assert split.share[0].tolist() == [[1, 0], [1, 0], [0, 1]]
    assert split.max_load.tolist() == pytest.approx([10 / 6])


@pytest.mark.parametrize(
    ("table", "code"),
    [([[0, 1]], "map_shape"), ([[0, 1, 7, 2]], "expert_out_of_range"), ([[0, 1, 0, 1]], "expert_missing")],
)
def test_maps_of_other_problems_are_refused(table: list[list[int]], code: str) -> None:
    """Wrong shape, unknown expert, missing expert."""
    problem, _ = small([[0, 1, 2, -1]], [6, 4, 2])
    with pytest.raises(InputError) as caught:
        optimal_split(problem, np.array(table))
    assert [item.code for item in caught.value.violations] == [code]


def plan(table: list[list[int]]) -> Plan:
    """Return a plan of one layer on two GPUs."""
    return Plan(
        physical_to_logical_map=np.array(table, np.int32),
        layer_ids=np.array([0]),
        num_experts=3,
        num_gpus=2,
        slots_per_gpu=2,
        gpus_per_node=(2,),
    )


def evaluated(table: list[list[int]], **options: Any) -> dict[str, Any]:
    """Replay tokens with loads 6, 4 and 2."""
    ids = np.repeat([0, 1, 2], [6, 4, 2])[:, None, None]
    return evaluate(plan(table), Trace.of(ids, num_experts=3), Topology.of((2,), speed=[1, 3]), **options).as_dict()


@pytest.mark.parametrize("options", [{}, {"execution": "dispatch"}, {"workers": 3}])
def test_evaluations_of_plans_with_replicas_have_the_figure(options: dict[str, Any]) -> None:
    """Overall and per layer, below the imbalance of the replay; speeds do not matter, as for the other metrics."""
    found = evaluated([[0, 1, 0, 2]], **options)
    assert found["imbalance_optimal_split"] == pytest.approx(1.0)
    assert found["per_layer"]["imbalance_optimal_split"] == pytest.approx([1.0])
    assert found["imbalance_optimal_split"] <= found["imbalance_max_over_mean"] + TOLERANCE


def test_evaluations_of_plans_without_replicas_have_none() -> None:
    """There is nothing to split."""
    found = evaluated([[0, 1, 2, -1]])
    assert found["imbalance_optimal_split"] is None
    assert "imbalance_optimal_split" not in found["per_layer"]
