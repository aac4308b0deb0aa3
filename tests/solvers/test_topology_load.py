"""Hot experts near their callers: the optimum by enumeration, whose homes count, what is told."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, Group, Objective, Pin, Problem, Topology
from placement.cost.feasibility import broken_constraints
from placement.cost.shares import home_share
from placement.plan.plan import replicas_on_gpu
from placement.problem.objective import Ownership
from solvers import Solution, solve, solver_from
from solvers.methods.topology_load import hops_from_callers
from traces import Profile, Trace

TOPOLOGIES = {
    "flat": Topology.parse("1x3"),
    "two_and_one": Topology.parse("2+1"),
    "directed": Topology.of((1, 1, 1), rank_cost_matrix=[[0.0, 1.0, 3.0], [2.0, 0.0, 1.0], [1.0, 2.0, 0.0]]),
    "uneven": Topology.of((2, 1), slots=[1, 2, 3]),
}


def problem(
    topology: str = "two_and_one",
    seed: int = 0,
    ownership: Ownership = "token",
    slots: int = 2,
    constraints: Constraints | None = None,
) -> Problem:
    """Tokens with skewed experts, and homes that have favourites of their own."""
    rng = np.random.default_rng(seed)
    layers, experts, tokens = 2, 4, 200
    rank = rng.choice(3, tokens, p=[0.6, 0.3, 0.1])
    ids = (rank[:, None] + rng.choice(experts, (tokens, layers), p=[0.5, 0.3, 0.15, 0.05])) % experts
    trace = Trace.of(ids[:, :, None], num_experts=experts, source_rank=rank)
    objective = Objective(
        execution="dispatch",
        dedup="none",
        ownership=ownership,
        imbalance_weight=0.0,
        load_spread_weight=0.0,
        replica_policy="fair",
        load_spread_tolerance=0.0088,
    )
    given = TOPOLOGIES[topology]
    return Problem(Profile.of(trace, workers=1), given, slots, objective, constraints or Constraints())


def gpus_of(found: Solution, given: Problem) -> npt.NDArray[np.int64]:
    """Return the GPU of each expert, (L, E), of a plan with one replica of each."""
    replicas = replicas_on_gpu(found.plan.physical_to_logical_map, given.num_experts, given.num_gpus)
    assert replicas.sum(axis=2).tolist() == [[1] * given.num_experts] * given.num_layers
    return np.asarray(replicas.argmax(axis=2), dtype=np.int64)


def least(given: Problem, hops: npt.NDArray[np.float64]) -> list[float]:
    """Return the model's optimum in each layer, by enumeration."""
    experts = np.arange(given.num_experts)
    every = [
        np.array(gpu)
        for gpu in itertools.product(range(given.num_gpus), repeat=given.num_experts)
        if (np.bincount(gpu, minlength=given.num_gpus) <= given.capacity).all()
    ]
    return [
        min(float((given.profile.load[layer] * hops[layer, experts, gpu]).sum()) for gpu in every)
        for layer in range(given.num_layers)
    ]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    topology=st.sampled_from(sorted(TOPOLOGIES)),
    callers=st.sampled_from(["layer", "expert"]),
    measured=st.booleans(),
)
def test_plan_is_the_enumerated_optimum(seed: int, topology: str, callers: str, measured: bool) -> None:
    """Load times hops is the least of all placements that fit the slots, in every layer."""
    given = problem(topology, seed, "measured" if measured else "token", slots=3)
    found = solve(given, "topology_load", options={"callers": callers})
    hops = hops_from_callers(given, "layer" if callers == "layer" else "expert")
    gpu, experts = gpus_of(found, given), np.arange(given.num_experts)
    value = [
        float((given.profile.load[layer] * hops[layer, experts, gpu[layer]]).sum()) for layer in range(given.num_layers)
    ]
    assert value == pytest.approx(least(given, hops), rel=1e-9)


def test_hops_are_those_from_the_homes() -> None:
    """Evenly spread homes: the mean over ranks; measured ones: weighted by who calls the layer, or the expert."""
    even, measured = problem(), problem(ownership="measured")
    cost = even.topology.hop_cost
    assert hops_from_callers(even)[1, 2] == pytest.approx(cost.mean(axis=0))
    homes = home_share(measured)
    assert homes is not None
    by_layer = measured.relative_load[0] @ homes[0]
    assert hops_from_callers(measured)[0, 3] == pytest.approx(by_layer @ cost)
    assert hops_from_callers(measured, "expert")[0, 3] == pytest.approx(homes[0, 3] @ cost)


def test_hottest_experts_are_nearest() -> None:
    """The GPU that is alone on its node, far from the others, gets the experts with the fewest tokens."""
    given = problem("two_and_one")
    gpu = gpus_of(solve(given, "topology_load"), given)
    for layer in range(given.num_layers):
        load = given.profile.load[layer]
        assert (gpu[layer] == 2).sum() == 0  # both near GPUs have room for all four
        assert load.sum() > 0
    tight = problem("uneven", slots=3)
    gpu = gpus_of(solve(tight, "topology_load"), tight)
    for layer in range(tight.num_layers):
        load = tight.profile.load[layer]
        assert load[gpu[layer] == 2].max() <= load[gpu[layer] != 2].min()


def test_no_preference_keeps_the_order_and_is_told() -> None:
    """On a flat topology all GPUs are equally far: experts stay in linear order."""
    given = problem("flat")
    found = solve(given, "topology_load")
    order = solve(given, "contiguous")
    assert np.array_equal(gpus_of(found, given), gpus_of(order, given))
    assert "no preference" in "\n".join(found.plan.provenance["notes"])


def test_optimum_proves_the_traffic_without_spare_slots() -> None:
    """Where the model is the traffic term and nothing else counts, the plan is optimal; else only feasible."""
    topology = Topology.of((1, 1), rank_cost_matrix=[[0.0, 1.0], [0.3, 0.0]])
    base = problem(ownership="token")
    full = Problem(base.profile, topology, 2, base.objective)
    assert solve(full, "topology_load").termination.reason == "optimal"
    spare = Problem(base.profile, topology, 3, base.objective)
    assert solve(spare, "topology_load").termination.reason == "feasible"


def test_pins_and_exclusions_are_kept() -> None:
    """The optimum of what is left: both are places that are left out."""
    constraints = Constraints(pins=(Pin(expert=0, gpu=2),), forbidden=(Pin(expert=1, gpu=0, layer_id=1),))
    given = problem(constraints=constraints)
    found = solve(given, "topology_load")
    assert broken_constraints(given, found.plan.physical_to_logical_map).found == []
    gpu = gpus_of(found, given)
    assert gpu[:, 0].tolist() == [2, 2]
    assert gpu[1, 1] != 0


def test_deduplication_is_told() -> None:
    """The model counts a message per expert where the engine sends fewer."""
    base = problem()
    given = Problem(base.profile, base.topology, 2, Objective(execution="dispatch", dedup="gpu"))
    assert "a message per expert" in "\n".join(solve(given, "topology_load").plan.provenance["notes"])


def test_what_it_does_not_know_is_refused() -> None:
    """Chains, groups, and experts pinned to several GPUs."""
    base, method = problem(), solver_from("topology_load")
    assert "dispatch" in (method.supports(Problem(base.profile, base.topology, 2)) or "")
    grouped = problem(constraints=Constraints(groups=(Group(experts=(0, 1)),)))
    assert "groups" in (method.supports(grouped) or "")
    twice = problem(constraints=Constraints(pins=(Pin(expert=0, gpu=0), Pin(expert=0, gpu=1))))
    assert "several GPUs" in (method.supports(twice) or "")
