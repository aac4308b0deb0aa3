"""Bounds of whole problems: never above the enumerated optimum, whatever ends the search, the same on any workers."""

import itertools
import threading
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from placement import Constraints, Objective, Pin, Problem, Topology, lower_bound, score
from placement.cost.bounds import levels_of, load_floor
from placement.cost.feasibility import broken_constraints
from placement.problem.objective import Dedup, ReplicaPolicy
from solvers import Limits
from solvers.bounds import raise_bound
from solvers.bounds.eigen import largest_eigenvalues
from solvers.bounds.layer_windows import ChainBound
from solvers.bounds.message_parts import least_absent
from solvers.bounds.threads import single_threaded
from solvers.searching.events import Event
from solvers.searching.search import Search
from tests.builders.traces import load_counts, planted_trace, profile_of
from traces import Profile, Trace

Table = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
HOPS = [[0, 2, 3], [1, 0, 5], [4, 6, 0]]
DISPATCH = Objective(execution="dispatch")


@cache
def profile(experts: int, top_k: int = 2, layers: int = 2, tokens: int = 40, seed: int = 0) -> Profile:
    """Tokens whose experts follow each other, some hot, with sources."""
    trace = planted_trace(
        [seed, experts, top_k, layers],
        tokens,
        layers,
        experts,
        top_k,
        teams=experts,
        pull=2.0,
        decline=0.4,
        sequence=5,
        sources=2,
    )
    return profile_of(trace)


def uneven() -> Topology:
    """Return two GPUs, one of them with fewer slots and faster."""
    return Topology.of((2,), speed=[1.0, 2.0], slots=[3, 2])


CASES = {
    "coherent": lambda: Problem(profile(4), Topology.parse("1x2")),
    "coherent, three layers": lambda: Problem(profile(4, layers=3), Topology.parse("2x1")),
    "coherent, nodes": lambda: Problem(profile(4), Topology.parse("2x2")),
    "coherent, any hops": lambda: Problem(profile(3), Topology.of((3,), rank_cost_matrix=HOPS)),
    "coherent, replicas": lambda: Problem(profile(3), Topology.parse("1x2"), slots_per_gpu=2),
    "coherent, replicas and cap": lambda: Problem(
        profile(3), Topology.parse("1x2"), slots_per_gpu=2, constraints=Constraints(load_cap=1.05)
    ),
    "coherent, cap": lambda: Problem(profile(6), Topology.parse("1x2"), constraints=Constraints(load_cap=1.05)),
    "coherent, cap out of reach": lambda: Problem(
        profile(6, top_k=1), Topology.parse("1x3"), constraints=Constraints(load_cap=1.0)
    ),
    "coherent, cheap cap": lambda: Problem(
        profile(6),
        Topology.parse("1x2"),
        objective=Objective(load_excess_weight=0.3),
        constraints=Constraints(load_cap=1.01),
    ),
    "coherent, cap, nodes": lambda: Problem(profile(4), Topology.parse("2x2"), constraints=Constraints(load_cap=1.2)),
    "coherent, robust cap": lambda: Problem(
        profile(4, tokens=1600),
        Topology.parse("1x2"),
        constraints=Constraints(load_cap=1.1, load_quantile=0.9, load_groups="sequences"),
    ),
    "coherent, imbalance": lambda: Problem(
        profile(4), Topology.parse("1x2"), objective=Objective(imbalance_weight=0.5, load_spread_weight=0.1)
    ),
    "coherent, uneven": lambda: Problem(
        profile(4), uneven(), slots_per_gpu=3, constraints=Constraints(load_cap=1.1, pins=(Pin(expert=0, gpu=1),))
    ),
    "messages to GPUs": lambda: Problem(profile(4), Topology.parse("1x2"), objective=DISPATCH),
    "messages to GPUs, cap": lambda: Problem(
        profile(6, top_k=3), Topology.parse("1x2"), objective=DISPATCH, constraints=Constraints(load_cap=1.05)
    ),
    "messages to GPUs, cheap cap": lambda: Problem(
        profile(6, top_k=3),
        Topology.parse("1x2"),
        objective=replace(DISPATCH, load_excess_weight=0.3, imbalance_weight=0.0),
        constraints=Constraints(load_cap=1.01),
    ),
    "messages to nodes": lambda: Problem(
        profile(4, top_k=3), Topology.parse("2x2"), objective=Objective(execution="dispatch", dedup="node")
    ),
    "messages to nodes, any hops": lambda: Problem(
        profile(3), Topology.of((2, 1), rank_cost_matrix=HOPS), objective=Objective(execution="dispatch", dedup="node")
    ),
    "messages, replicas": lambda: Problem(
        profile(3), Topology.parse("1x2"), slots_per_gpu=2, objective=replace(DISPATCH, replica_policy="fair")
    ),
    "messages, near replicas": lambda: Problem(profile(3), Topology.parse("2x1"), slots_per_gpu=2, objective=DISPATCH),
    "messages, few replicas": lambda: Problem(
        profile(4, top_k=3), Topology.parse("1x2"), slots_per_gpu=3, objective=replace(DISPATCH, imbalance_weight=0.0)
    ),
    "messages to nodes, few replicas": lambda: Problem(
        profile(4, top_k=3),
        Topology.parse("2x1"),
        slots_per_gpu=3,
        objective=replace(DISPATCH, dedup="node", ownership="sequence", imbalance_weight=0.0),
    ),
    "messages from measured ranks": lambda: Problem(
        profile(4), Topology.parse("1x2"), objective=replace(DISPATCH, ownership="measured")
    ),
    "assignments": lambda: Problem(
        profile(4), Topology.parse("2x2"), objective=replace(DISPATCH, dedup="none", ownership="measured")
    ),
    "assignments, replicas": lambda: Problem(
        profile(3), Topology.parse("1x2"), slots_per_gpu=2, objective=replace(DISPATCH, dedup="none")
    ),
    "counts only": lambda: Problem(
        profile_of(load_counts([[5.0, 3.0, 9.0, 4.0], [9.0, 9.0, 1.0, 2.0]])),
        Topology.of((3,), rank_cost_matrix=HOPS, slots=[2, 1, 1]),
        slots_per_gpu=2,
        objective=Objective(execution="dispatch", dedup="none"),
    ),
}


def optimum(problem: Problem) -> float:
    """Return the least score over all plans; layers one by one where they don't depend on each other."""
    G, C = problem.num_gpus, problem.slots_per_gpu
    rows = []
    if problem.num_slots > problem.num_experts:  # replicas, empty slots, or slots that can't be used
        held = [
            [tuple(sorted(row)) for row in itertools.combinations_with_replacement(range(-1, problem.num_experts), C)]
        ]
        rows = [sum(row, ()) for row in itertools.product(*held * G)]
    else:
        rows = [
            row
            for row in itertools.permutations(range(problem.num_experts))
            if all(row[gpu * C + slot] < row[gpu * C + slot + 1] for gpu in range(G) for slot in range(C - 1))
        ]
    valid = []
    for row in rows:
        if set(row) >= set(range(problem.num_experts)):
            table = np.array([row] * problem.num_layers)
            if not broken_constraints(problem, table).found:
                valid.append(row)
    return min(score(problem, np.array(table)).total for table in itertools.product(valid, repeat=problem.num_layers))


@cache
def solved(name: str) -> tuple[Problem, float]:
    """Return a case and its optimum."""
    problem = CASES[name]()
    return problem, optimum(problem)


def bounded(problem: Problem, limits: Limits, workers: int = 1) -> float:
    """Return the best bound that is found within limits."""
    search = Search(problem, limits, workers=workers)
    search.bound(lower_bound(problem))
    raise_bound(problem, search)
    found = search.outcome().bound
    assert found is not None
    return found


@pytest.mark.parametrize("name", list(CASES))
def test_never_above_the_optimum(name: str) -> None:
    """The instant bound, the one of very little work, and the one where nothing more is gained."""
    problem, best = solved(name)
    instant = lower_bound(problem)
    little, much = (bounded(problem, Limits(work=work)) for work in (50, 20_000_000))
    assert load_floor(problem) <= instant <= little <= much <= best + 1e-9 * max(1.0, best)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    topology=st.sampled_from(["1x3", "3x1"]),
    dedup=st.sampled_from(["gpu", "node"]),
    policy=st.sampled_from(["fair", "same_gpu", "same_node"]),
)
def test_never_above_the_optimum_with_replicas(seed: int, topology: str, dedup: Dedup, policy: ReplicaPolicy) -> None:
    """Few tokens, which may all draw the replica that suits them; `benchmarks/bounds_below_optima.py` has more."""
    problem = Problem(
        profile(3, top_k=2, layers=1, tokens=8, seed=seed),
        Topology.parse(topology),
        slots_per_gpu=2,
        objective=Objective(execution="dispatch", dedup=dedup, replica_policy=policy, imbalance_weight=0.0),
    )
    best = optimum(problem)
    assert bounded(problem, Limits(work=500_000)) <= best + 1e-9 * max(1.0, best)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), gpus=st.sampled_from([2, 3]), cap=st.sampled_from([None, 1.02, 1.2]))
def test_never_above_the_optimum_of_random_chains(seed: int, gpus: int, cap: float | None) -> None:
    """Random tokens, hop costs, speeds, caps and prices of excess."""
    rng = np.random.default_rng(seed)
    hops = rng.random((gpus, gpus)) * rng.choice([0.1, 1.0], (gpus, gpus)) + 0.01
    np.fill_diagonal(hops, 0.0)
    topology = Topology.of((gpus,), rank_cost_matrix=hops, speed=rng.random(gpus) + 0.5)
    problem = Problem(
        profile(2 * gpus if gpus == 2 else 3, layers=int(rng.integers(2, 4)), seed=int(rng.integers(2**20))),
        topology,
        objective=Objective(
            load_excess_weight=float(rng.choice([0.05, 1.0, 100.0])),
            imbalance_weight=float(rng.choice([0.0, 0.1, 5.0])),
        ),
        constraints=Constraints(load_cap=cap),
    )
    best = optimum(problem)
    assert bounded(problem, Limits(work=10_000_000)) <= best + 1e-9 * max(1.0, best)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), gpus=st.integers(2, 7), values=st.integers(1, 9))
def test_levels_are_below_every_hop(seed: int, gpus: int, values: int) -> None:
    """The levels that part two GPUs never cost more than a hop between them, in either direction."""
    rng = np.random.default_rng(seed)
    hops = np.round(rng.random((gpus, gpus)) * values) + rng.integers(0, 2, (gpus, gpus)) * 0.5
    np.fill_diagonal(hops, 0.0)
    problem = Problem(profile(7), Topology.of((gpus,), rank_cost_matrix=hops))
    levels = levels_of(problem)
    parted = np.zeros((gpus, gpus))
    for level in levels:
        parted += level.cost * (level.block_of_gpu[:, None] != level.block_of_gpu[None, :])
        assert level.room == max(np.bincount(level.block_of_gpu) * problem.slots_per_gpu)
    assert (parted <= hops + 1e-12).all()
    assert parted.max(initial=0.0) > 0 or hops[~np.eye(gpus, dtype=bool)].min() == 0


def test_levels_of_two_tiers_are_gpus_and_nodes() -> None:
    """Costs inside a node, and what a hop between nodes costs more."""
    problem = Problem(profile(4), Topology.parse("2x2"))
    gpus, nodes = levels_of(problem)
    hop = problem.topology.hop_cost
    assert (gpus.blocks, gpus.room, gpus.cost) == (4, 1, hop[0, 1])
    assert (nodes.blocks, nodes.room) == (2, 2)
    assert nodes.cost == pytest.approx(hop[0, 2] - hop[0, 1])
    assert nodes.block_of_gpu.tolist() == [0, 0, 1, 1]


def larger() -> Problem:
    """Return a chain that takes some work."""
    return Problem(profile(16, top_k=3, layers=7, tokens=2000), Topology.parse("2x2"))


@pytest.mark.parametrize("work", [800_000, 10_000_000])
def test_same_work_same_bound(work: int) -> None:
    """Whatever the number of workers."""
    assert bounded(larger(), Limits(work=work), 1) == bounded(larger(), Limits(work=work), 2)


def test_longer_searches_are_tighter() -> None:
    """The relaxation beats the instant bound, and windows of layers beat pairs."""
    problem = larger()
    instant, pairs, windows = (bounded(problem, Limits(work=work)) for work in (1, 3_000_000, 20_000_000))
    assert instant == pytest.approx(lower_bound(problem))
    assert instant < pairs - 0.01
    assert pairs < windows


def test_load_cap_raises_the_bound() -> None:
    """What the cap forbids can't be kept together: hot experts that follow each other."""
    problem = Problem(profile(8, top_k=1, layers=3, tokens=1000), Topology.parse("1x4"))
    capped = Problem(problem.profile, problem.topology, constraints=Constraints(load_cap=1.5))
    limits = Limits(work=20_000_000)
    assert bounded(capped, limits) - load_floor(capped) > bounded(problem, limits) + 1e-3


def test_coactivation_beats_tokens_per_slot() -> None:
    """Tokens that fit two GPUs by number, whose experts have too many different partners to stay there."""
    ids = np.array(list(itertools.combinations(range(8), 3)) * 4, np.int16)[:, None, :].repeat(2, axis=1)
    problem = Problem(Profile.of(Trace.of(ids, num_experts=8), workers=1), Topology.parse("1x2"), objective=DISPATCH)
    assert bounded(problem, Limits(work=5_000_000)) > lower_bound(problem) + 0.05


def test_stopped_at_once_or_later_it_is_safe() -> None:
    """Cancelled before it begins, after the first news, and by a clock: what was reported stands, and it returns."""
    problem, best = solved("coherent, three layers")
    interrupt = threading.Event()
    interrupt.set()
    search = Search(problem, Limits(time_s=None), interrupt=interrupt)
    raise_bound(problem, search)
    assert search.outcome().bound is None

    def stop(event: Event) -> None:
        search.cancel()

    search = Search(problem, Limits(time_s=None), workers=2, observe=stop)
    raise_bound(problem, search)
    bound = search.outcome().bound
    assert bound is not None
    assert bound <= best + 1e-9
    assert bounded(problem, Limits(time_s=1e-6)) == lower_bound(problem)
    assert bounded(larger(), Limits(time_s=0.2), 2) >= lower_bound(larger())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), room=st.integers(1, 5), top_k=st.integers(1, 4))
def test_no_block_lacks_less(seed: int, room: int, top_k: int) -> None:
    """Whatever two blocks of 5 experts lack, the messages of their tokens are no fewer."""
    rng = np.random.default_rng(seed)
    ids = rng.random((30, 5)).argsort(axis=1)[:, :top_k]
    ids[rng.random(ids.shape) < 0.2] = -1
    homes = rng.integers(0, 2, 30)
    fewest = 0
    for home in (0, 1):
        here = ids[homes == home]
        fewest += min(
            int(np.ceil(np.isin(here, lacks).sum(axis=1) / room).sum())
            for lacks in itertools.combinations(range(5), 5 - room)
        )
    assert least_absent(ids, homes, 5, room) <= fewest + 1e-9


def test_pairs_that_are_too_large_keep_the_instant_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matrix is larger than the limits, and what they leave out still counts."""
    problem = larger()
    monkeypatch.setattr("solvers.bounds.layer_windows.MAX_PAIR_SIZE", 31)
    monkeypatch.setattr("solvers.bounds.layer_windows.MAX_SIZE", 31)
    assert ChainBound(problem).passes() == []
    assert bounded(problem, Limits(work=10_000_000)) == pytest.approx(lower_bound(problem))


def blas_threads() -> set[int]:
    """Return the numbers of threads of the linear algebra libraries."""
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_linear_algebra_gets_its_threads_back() -> None:
    """One thread while any bound is raised; as many as before when the last one is through, in whatever order."""
    before = blas_threads()
    first, second = single_threaded(), single_threaded()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas_threads() == {1}
    second.__exit__(None, None, None)
    assert blas_threads() >= before


@pytest.mark.parametrize(
    ("topology", "objective"),
    [("1x4", Objective()), ("1x4", DISPATCH), ("2x2", Objective(execution="dispatch", dedup="node"))],
    ids=["coherent", "gpus", "nodes"],
)
def test_what_loads_cost_never_lowers_the_rest(topology: str, objective: Objective) -> None:
    """A weight of the largest load, small or large, and a cap within reach, only forbid: traffic's part stays."""
    traffic = replace(objective, imbalance_weight=0.0)
    free = Problem(profile(16, top_k=3, layers=3, tokens=2000), Topology.parse(topology), objective=traffic)
    limits = Limits(work=30_000_000)
    without = bounded(free, limits)
    for weight, cap in ((0.01, None), (0.5, None), (30.0, None), (0.0, 1.1), (0.5, 1.1)):
        problem = Problem(
            free.profile,
            free.topology,
            objective=replace(traffic, imbalance_weight=weight),
            constraints=Constraints(load_cap=cap),
        )
        assert bounded(problem, limits) - load_floor(problem) >= 0.99 * without


@pytest.mark.parametrize("replicas", [0, 1])
def test_same_work_same_bound_of_messages(replicas: int) -> None:
    """Tokens play as long on two workers as on one."""
    problem = Problem(
        profile(16, top_k=3, layers=3, tokens=500),
        Topology.parse("2x2"),
        slots_per_gpu=4 + replicas,
        objective=Objective(execution="dispatch", dedup="node"),
    )
    limits = Limits(work=3_000_000)
    assert bounded(problem, limits, 1) == bounded(problem, limits, 2) > lower_bound(problem)


def test_a_budget_of_no_replicas_is_one_replica_each() -> None:
    """Slots that no replica may fill don't loosen the bound."""
    objective = replace(DISPATCH, imbalance_weight=0.0)
    spare = Problem(
        profile(8, top_k=3),
        Topology.parse("1x4"),
        slots_per_gpu=3,
        objective=objective,
        constraints=Constraints(extra_replicas=0),
    )
    free = Problem(spare.profile, spare.topology, slots_per_gpu=3, objective=objective)
    limits = Limits(work=5_000_000)
    assert bounded(spare, limits) > bounded(free, limits) + 0.01


def test_eigenvalues_that_fail_leave_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first step and later: what was found so far stands."""
    problem, best = solved("messages to GPUs, cap")
    for calls in (0, 3, 20):
        left = itertools.count()

        def fails(matrix: object, count: int, calls: int = calls, left: "itertools.count[int]" = left) -> object:
            if next(left) >= calls:
                raise np.linalg.LinAlgError("no")
            return largest_eigenvalues(matrix, count)  # type: ignore[arg-type]  # an array

        monkeypatch.setattr("solvers.bounds.relaxation.largest_eigenvalues", fails)
        assert lower_bound(problem) <= bounded(problem, Limits(work=5_000_000)) <= best + 1e-9
