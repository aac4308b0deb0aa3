"""MoETuner's two programmes: both against enumeration, their limits, and what the plan says of them."""

import itertools
import threading

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Constraints, Objective, Pin, Problem, Topology
from placement.plan.plan import replicas_on_gpu
from solvers import Limits, Search, Solution, solve, solver_from
from solvers.methods.moetuner.clusters import balance_exactly, heaviest_first, imbalance, whole_loads
from solvers.methods.moetuner.mapping import assign_in_turns, busiest_links, link_times, map_exactly, transitions
from tests.builders.problems import problem_of
from tests.builders.traces import load_counts, staying_trace
from traces import InputError, Trace


def tokens(layers: int = 3, experts: int = 8) -> Trace:
    """Tokens with skew that keep their kind half of the time."""
    return staying_trace(5, 400, layers, experts, 0.5, popularity="falling")


def search(limits: Limits | None = None, workers: int = 1) -> Search:
    """Return a search to run parts of the method in."""
    return Search(problem_of(tokens()), limits or Limits(time_s=None), workers=workers)


def notes(solution: Solution) -> str:
    """Return the notes in a plan's provenance, as one text."""
    return "\n".join(solution.plan.provenance["notes"])


def gpus_of(solution: Solution, given: Problem) -> npt.NDArray[np.int64]:
    """Return the GPU of each expert, (L, E)."""
    replicas = replicas_on_gpu(solution.plan.physical_to_logical_map, given.num_experts, given.num_gpus)
    return np.asarray(replicas.argmax(axis=2), dtype=np.int64)


def least_imbalance(load: npt.NDArray[np.int64], clusters: int) -> int:
    """Least value of the first programme, by enumeration of all clusters of equal size (give or take one)."""
    sizes = {len(load) // clusters, -(-len(load) // clusters)}
    return min(
        imbalance(load, np.array(of_expert), clusters)
        for of_expert in itertools.product(range(clusters), repeat=len(load))
        if set(np.bincount(of_expert, minlength=clusters).tolist()) <= sizes
    )


def least_busiest_links(counts: npt.NDArray[np.float64], link_time: npt.NDArray[np.float64]) -> float:
    """Least value of the second programme, by enumeration of all permutations of all layers."""
    every = [np.array(p) for p in itertools.permutations(range(len(link_time)))]
    mappings = itertools.product(every, repeat=len(counts) + 1)
    return min(spelled_out(counts, link_time, np.stack(gpu)) for gpu in mappings)


def spelled_out(
    counts: npt.NDArray[np.float64], link_time: npt.NDArray[np.float64], gpu: npt.NDArray[np.int64]
) -> float:
    """Return the objective as the paper writes it, with its binaries ``y[c, g, l]``."""
    y = (gpu[:, :, None] == np.arange(gpu.shape[1])).astype(float)
    total = 0.0
    for layer, pairs in enumerate(counts):
        on_link = np.einsum("cd,cg,dh->gh", pairs, y[layer], y[layer + 1]) * link_time
        total += max(on_link[g, h] for g, h in itertools.permutations(range(gpu.shape[1]), 2))
    return total


@settings(max_examples=40)
@given(
    load=st.lists(st.integers(0, 40), min_size=2, max_size=7).filter(any),
    clusters=st.integers(2, 3),
)
def test_first_programme_is_optimal(load: list[int], clusters: int) -> None:
    """Clusters are the best of all enumerated ones, and proven so."""
    weights = np.array(load)
    found = balance_exactly(weights, clusters, search())
    assert found.proven
    assert imbalance(weights, found.of_expert, clusters) == least_imbalance(weights, clusters)


@given(
    load=st.lists(st.integers(0, 1000), min_size=1, max_size=40).filter(any),
    clusters=st.integers(1, 9),
)
def test_heaviest_first_makes_clusters_of_equal_size(load: list[int], clusters: int) -> None:
    """Sizes differ by one at most."""
    size = np.bincount(heaviest_first(np.array(load), clusters), minlength=clusters)
    assert size.max() - size.min() <= 1


def test_heaviest_first_deals_to_the_lightest_cluster_with_room() -> None:
    """9 | 8 | 7 goes to 8's, 1 to 9's: two of each."""
    assert heaviest_first(np.array([1, 9, 7, 8]), 2).tolist() == [0, 0, 1, 1]


def test_exact_clusters_beat_heaviest_first() -> None:
    """A case where LPT ends with a difference and another split with none."""
    load = np.array([8, 7, 6, 5, 4, 0])
    assert imbalance(load, heaviest_first(load, 2), 2) > 0
    assert imbalance(load, balance_exactly(load, 2, search()).of_expert, 2) == 0


def test_loads_that_are_not_whole_are_scaled() -> None:
    """Fractions keep their ratios; whole numbers are left alone."""
    assert whole_loads(np.array([3.0, 1.0])).tolist() == [3, 1]
    first, second = whole_loads(np.array([0.75, 0.25]))
    assert first == 3 * second


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    layers=st.integers(1, 3),
    gpus=st.integers(2, 4),
    directed=st.booleans(),
)
def test_second_programme_is_optimal(seed: int, layers: int, gpus: int, directed: bool) -> None:
    """The shortest path through the permutations is the optimum of the programme as printed, links of any bandwidth."""
    layers = min(layers, 2) if gpus == 4 else layers
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 9, (layers - 1, gpus, gpus)).astype(float)
    link_time = rng.choice([0.25, 0.5, 1.0], (gpus, gpus)) if directed else np.ones((gpus, gpus))
    np.fill_diagonal(link_time, 0.0)
    gpu = map_exactly(counts, link_time, search(workers=1 + seed % 2))
    assert gpu is not None
    assert all(sorted(row) == list(range(gpus)) for row in gpu.tolist())
    least = least_busiest_links(counts, link_time)
    assert spelled_out(counts, link_time, gpu) == pytest.approx(least, abs=1e-12)
    assert busiest_links(counts, link_time, gpu) == pytest.approx(least, abs=1e-12)


@given(seed=st.integers(0, 10_000), layers=st.integers(1, 5), gpus=st.integers(1, 5))
def test_assignment_in_turns_is_never_worse_than_clusters_in_order(seed: int, layers: int, gpus: int) -> None:
    """The heuristic gives a permutation per layer, no better than the optimum and no worse than the identity."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 100, (layers - 1, gpus, gpus)).astype(float)
    link_time = 1.0 - np.eye(gpus)
    gpu = assign_in_turns(counts, link_time, search())
    assert all(sorted(row) == list(range(gpus)) for row in gpu.tolist())
    exact = map_exactly(counts, link_time, search())
    assert exact is not None
    value = busiest_links(counts, link_time, gpu)
    in_order = np.tile(np.arange(gpus), (layers, 1))
    assert busiest_links(counts, link_time, exact) <= value <= busiest_links(counts, link_time, in_order)


def test_transitions_add_up_pairs_of_clusters() -> None:
    """``D[c, d]`` is the sum of A over the experts of c and d."""
    affinity = np.arange(9).reshape(1, 3, 3)
    of_expert = np.array([[0, 1, 0], [1, 1, 0]])
    assert transitions(affinity, of_expert, 2).tolist() == [[[2 + 8, 0 + 1 + 6 + 7], [5, 3 + 4]]]


def test_link_times_follow_bandwidth_or_else_hop_costs() -> None:
    """The slowest pair takes 1 and a GPU reaches itself at no cost."""
    two_tiers = link_times(Topology.parse("hgx_h100:2"))  # 450 GB/s inside, 50 GB/s between nodes
    assert two_tiers[0, 0] == 0
    assert two_tiers[0, 1] == pytest.approx(50 / 450)
    assert two_tiers[0, 8] == 1
    costs = Topology.of((3,), rank_cost_matrix=[[0, 2, 4], [1, 0, 2], [0, 2, 0]])
    assert link_times(costs).tolist() == [[0, 0.5, 1], [0.25, 0, 0.5], [0, 0.5, 0]]


def test_plan_is_that_of_the_two_optima() -> None:
    """The experts of a cluster share a GPU; loads and links of the plan have the enumerated optima's values."""
    given = problem_of(tokens(experts=6), "1x3")
    found = solve(given, "moetuner", limits=Limits(work=10**6), options={"method": "exact"})
    gpu = gpus_of(found, given)
    for layer in range(given.num_layers):
        load = given.profile.load[layer].astype(np.int64)
        assert imbalance(load, gpu[layer], 3) == least_imbalance(load, 3)
    assert given.profile.affinity is not None
    counts, link_time = transitions(given.profile.affinity, gpu, 3), link_times(given.topology)
    in_place = np.tile(np.arange(3), (given.num_layers, 1))
    assert spelled_out(counts, link_time, in_place) == pytest.approx(least_busiest_links(counts, link_time))
    assert "3 of 3 layers proven optimal" in notes(found)
    assert "proven optimal for these clusters" in notes(found)


def test_heuristics_say_so() -> None:
    """The plan's notes name the method that was used for each programme, and why."""
    found = solve(problem_of(tokens()), "moetuner", limits=Limits(work=1000), options={"method": "assignment"})
    assert "heaviest expert first (LPT)" in notes(found)
    assert "linear assignment in turns (chosen)" in notes(found)


def test_auto_falls_back_beyond_its_limits() -> None:
    """More binaries or GPUs than allowed: LPT and assignment, each with its reason."""
    found = solve(
        problem_of(tokens()), "moetuner", limits=Limits(work=1000), options={"max_binaries": 31, "max_gpus": 3}
    )
    assert "LPT" in notes(found)
    assert "4 GPUs are more than max_gpus = 3" in notes(found)


def test_work_that_ends_early_is_told_and_repeats() -> None:
    """A work limit too small for proofs ends with the best so far, says so, and gives the same plan on any cores."""
    given = problem_of(tokens(2, 32))
    one, two = (solve(given, "moetuner", limits=Limits(work=40), workers=workers) for workers in (1, 2))
    assert one.termination.limit == "work"
    assert one.termination.deterministic
    assert "the limit ended the dynamic programme" in notes(one)
    assert one.plan.provenance["notes"] == two.plan.provenance["notes"]
    assert one.plan.physical_to_logical_map.tolist() == two.plan.physical_to_logical_map.tolist()


def test_cancelled_search_still_has_a_plan() -> None:
    """A search that is cancelled before it begins ends with the heuristic's plan."""
    interrupt = threading.Event()
    interrupt.set()
    found = solve(problem_of(tokens()), "moetuner", limits=Limits(time_s=30), interrupt=interrupt)
    assert found.termination.limit == "cancelled"
    assert found.plan.score is not None


def test_sizes_differ_by_one_where_experts_do_not_divide() -> None:
    """Seven experts on two GPUs: four and three."""
    given = problem_of(tokens(experts=7), "1x2")
    gpu = gpus_of(solve(given, "moetuner", limits=Limits(work=10**5)), given)
    assert {tuple(sorted(np.bincount(row, minlength=2).tolist())) for row in gpu} == {(3, 4)}


def test_spare_slots_stay_empty() -> None:
    """The method makes no replicas."""
    base = problem_of(tokens())
    given = Problem(base.profile, base.topology, 3)
    table = solve(given, "moetuner", limits=Limits(work=10**5)).plan.physical_to_logical_map
    assert (table < 0).sum() == given.num_layers * (given.num_slots - given.num_experts)


def test_dispatch_is_told_that_pairs_move_nothing() -> None:
    """The plan is made, with a word about what it can't do."""
    found = solve(
        problem_of(tokens(), objective=Objective(execution="dispatch", dedup="none")),
        "moetuner",
        limits=Limits(work=1000),
    )
    assert "pairs of layers move no bytes" in notes(found)


def test_what_it_does_not_know_is_refused() -> None:
    """Pins, uneven slots, counts without tokens, and more GPUs than the exact method can take."""
    base = problem_of(tokens())
    method = solver_from("moetuner")
    pinned = Problem(base.profile, base.topology, constraints=Constraints(pins=(Pin(expert=0, gpu=1),)))
    assert "pins" in (method.supports(pinned) or "")
    uneven = Problem(base.profile, Topology.of((3,), slots=[2, 3, 3]))
    assert "fewer slots" in (method.supports(uneven) or "")
    counts = problem_of(
        load_counts(base.profile.load),
        base.topology,
        objective=Objective(execution="dispatch", dedup="none"),
    )
    assert "transitions" in (method.supports(counts) or "")
    exact = solver_from("moetuner", {"method": "exact", "max_gpus": 3})
    assert "max_gpus = 3" in (exact.supports(base) or "")


@pytest.mark.parametrize("options", [{"max_gpus": 0}, {"max_gpus": 9}, {"max_binaries": 0}])
def test_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    """The pointer names the option."""
    with pytest.raises(InputError) as caught:
        solver_from("moetuner", options)
    assert [violation.pointer for violation in caught.value.violations] == [f"/options/{next(iter(options))}"]
