"""The annealing kernel's bookkeeping against the cost function."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from placement import Constraints, LayerCap, Objective, Pin, Problem, Topology, score
from placement.cost.feasibility import broken_constraints
from solvers.arrange.conform import conform, separate_replicas
from solvers.methods.annealing.tables.model import ItemModel
from solvers.methods.annealing.tables.run import SwapRun
from solvers.methods.eplb.solver import rebalance
from tests.builders.problems import problem_of
from tests.builders.traces import profile_of, skewed_ids
from traces import Trace

Hops = Literal["flat", "tiers", "any"]


def topology(hops: Hops, speeds: bool) -> Topology:
    """Four GPUs whose hops cost the same, one of two prices, or anything."""
    cost = np.random.default_rng(5).random((4, 4)) * (1 - np.eye(4)) if hops == "any" else None
    speed = [1.0, 1.5, 1.0, 0.7] if speeds else None
    return Topology.of((4,) if hops == "flat" else (2, 2), rank_cost_matrix=cost, speed=speed)


def problem(
    seed: int,
    hops: Hops,
    cap: float | None,
    replicas: bool,
    speeds: bool,
    spread: float,
    imbalance: float,
    quantile: float | None = None,
) -> Problem:
    """Three layers of eight experts of very different loads, in windows."""
    rng = np.random.default_rng(seed)
    ids = (skewed_ids(rng, 160, 3, 8, 1.5) + rng.integers(0, 3, (160, 3, 1))) % 8
    own = () if cap is None else (LayerCap(layer_id=1, load_cap=cap + 0.3),)
    return problem_of(
        profile_of(Trace.of(ids, num_experts=8), window_tokens=16),
        topology(hops, speeds),
        3 if replicas else 2,
        objective=Objective(imbalance_weight=imbalance, load_spread_weight=spread),
        constraints=Constraints(load_cap=cap, layer_load_caps=own, load_quantile=quantile),
    )


def change_by_kernel(problem: Problem, table: np.ndarray, temperature: float, seed: int) -> tuple[float, np.ndarray]:
    """Return what the kernel says that 300 trials change, and the map after them."""
    model = ItemModel(problem, table)
    start = np.tile(np.arange(problem.num_slots) // problem.slots_per_gpu, (problem.num_layers, 1))
    run = SwapRun(model, start, (seed,))
    change = run._anneal(300, model.scale * temperature, 1.0)
    return change, run.table()


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    hops=st.sampled_from(["flat", "tiers", "any"]),
    cap=st.sampled_from([None, 1.0, 1.2]),
    quantile=st.sampled_from([None, 0.5, 0.9]),
    replicas=st.booleans(),
    speeds=st.booleans(),
    imbalance=st.sampled_from([0.0, 0.7]),
    temperature=st.sampled_from([1e-6, 0.5, 50.0]),
)
@example(seed=1, hops="any", cap=1.2, quantile=None, replicas=True, speeds=True, imbalance=0.7, temperature=50.0)
@example(seed=1, hops="any", cap=1.2, quantile=0.9, replicas=True, speeds=True, imbalance=0.7, temperature=50.0)
def test_change_is_the_difference_of_the_scores(
    seed: int,
    hops: Hops,
    cap: float | None,
    quantile: float | None,
    replicas: bool,
    speeds: bool,
    imbalance: float,
    temperature: float,
) -> None:
    """Traffic, load cap, load spread and imbalance: the kernel's sum of changes is what the cost function says."""
    # The model's spread is exact for GPUs of equal speed only, as it says; its margin for any.
    made = problem(seed, hops, cap, replicas, speeds, 0.0 if speeds else 1.0, imbalance, cap and quantile)
    if replicas:
        loads = made.profile.load
        dealt = rebalance(loads, num_slots=made.num_slots, num_groups=1, num_nodes=1, num_gpus=4)
        table = separate_replicas(dealt, loads, 4)
    else:
        table = conform(made, np.tile(np.arange(8) // 2, (3, 1)))
    change, after = change_by_kernel(made, table, temperature, seed)
    assert broken_constraints(made, after).found == []
    assert change == pytest.approx(score(made, after).total - score(made, table).total, abs=1e-9)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15)
def test_locked_and_forbidden_places_stay_so(seed: int) -> None:
    """However hot, swaps keep pins and exclusions, and the change is still right."""
    base = problem(seed, "tiers", None, False, False, 0.0, 0.0)
    constraints = Constraints(pins=(Pin(expert=0, gpu=3),), forbidden=(Pin(expert=1, gpu=0), Pin(expert=2, gpu=1)))
    made = Problem(base.profile, base.topology, 2, constraints=constraints)
    table = conform(made, np.tile(np.arange(8) // 2, (3, 1)))
    change, after = change_by_kernel(made, table, 50.0, seed)
    assert broken_constraints(made, after).found == []
    assert change == pytest.approx(score(made, after).total - score(made, table).total, abs=1e-9)
