"""Bounds of random tiny dispatch problems with replicas beside their optima: none may be above.

Every map of the slots is replayed by the loop that scores are made with, so the optimum is exact. Problems are small
(3 or 4 experts, 3 or 4 GPUs, 6 to 14 tokens) so that a bound that holds on average only, for tokens that draw their
replicas by a hash, would be caught.

Run: ``python benchmarks/bounds_below_optima.py [--problems N] [--seed S]``. Target: 10,000 problems, none above.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from placement import Constraints, Objective, Problem, Topology, lower_bound
from placement.cost.shares import expected_share
from placement.plan.plan import replicas_on_gpu
from placement.replay.kernels import replay as kernels
from placement.replay.replay import DEDUPS, POLICIES, Replay, homes_of, replica_table
from solvers import Limits
from solvers.bounds import raise_bound
from solvers.searching.search import Search
from traces import Profile, Trace

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]
SHAPES = ((3, "1x3", 2), (3, "3x1", 2), (4, "1x3", 2), (4, "2x2", 2), (3, "2x2", 1), (4, "3x1", 3))
WORK = 400_000  # some 50 steps of each relaxation
ROUNDING = 1e-9


@numba.njit(nogil=True)
def _least(
    tokens: kernels.Tokens,
    gpus: Ints,
    counts: Ints,
    policy: int,
    node_of_gpu: Ints,
    dedup: int,
    entry: Ints,
    hop: Floats,
    sums: kernels.Sums,
    cells: kernels.Cells,
    beside: Floats,
) -> float:
    """Return the least cost of the maps, whose replicas are (N, 1, E, M) and (N, 1, E); `beside` traffic, (N,)."""
    best = np.inf
    for number in range(len(gpus)):
        sums.traffic[:] = 0
        replicas = kernels.Replicas(gpus[number], counts[number], policy, node_of_gpu)
        kernels.replay_dispatch(tokens, replicas, dedup, entry, sums, cells)
        best = min(best, (sums.traffic[0] * hop).sum() + beside[number])
    return best


def tables_of(experts: int, gpus: int, slots: int) -> Ints:
    """Return all maps that differ in what the GPUs hold, (N, S)."""
    held = list(itertools.combinations_with_replacement(range(-1, experts), slots))
    rows = [sum(row, ()) for row in itertools.product(held, repeat=gpus)]
    return np.array([row for row in rows if set(row) >= set(range(experts))])


def optimum(problem: Problem, tables: Ints) -> float:
    """Return the least score of all maps."""
    sample, topology, objective = problem.profile.sample, problem.topology, problem.objective
    assert sample is not None
    gpus, counts = replica_table(tables, problem.num_experts, problem.slots_per_gpu)
    homes = homes_of(objective, topology.num_gpus, sample.rows, sample.seq_id, sample.source_rank)
    tokens = kernels.Tokens(sample.topk_ids, sample.rows, homes)
    replay = Replay.of(tables[:1], problem.num_experts, problem.slots_per_gpu, topology, objective)
    sums = kernels.Sums(replay.traffic, replay.fanout, replay.away)
    cells = kernels.Cells(np.zeros(len(sample), np.int32), np.zeros((1, 1, topology.num_gpus), np.int32))
    counted = max(1, int((sample.topk_ids >= 0).any(axis=2).sum()))
    policy, dedup = POLICIES[objective.replica_policy], DEDUPS[objective.dedup]
    least = _least(
        tokens,
        gpus[:, None],
        counts[:, None],
        policy,
        topology.node_of_gpu,
        dedup,
        topology.entry_gpu,
        topology.hop_cost,
        sums,
        cells,
        loads_cost(problem, tables) * counted,
    )
    return float(least) / counted


def loads_cost(problem: Problem, tables: Ints) -> Floats:
    """Return what the loads of each map cost, (N,), but for the variance that homes add, which only makes it more."""
    objective, deviations = problem.objective, problem.load_deviations
    if not objective.imbalance_weight:
        return np.zeros(len(tables))
    replicas = replicas_on_gpu(tables, problem.num_experts, problem.num_gpus)
    share = expected_share(problem, replicas) / problem.topology.fair_share
    cost: Floats = objective.imbalance_weight * ((problem.relative_load[0] @ share).max(axis=1) - 1)
    if deviations is not None:
        variance = (np.einsum("neg,ew->ngw", share, deviations[0]) ** 2).sum(axis=2)
        cost += objective.load_spread_weight * np.sqrt(variance.mean(axis=1))
    return cost


def random_problem(rng: np.random.Generator, loads: bool) -> Problem:
    """Return a problem of one layer whose traffic alone counts, or loads and their spread by sequences as well."""
    experts, topology, slots = SHAPES[rng.integers(len(SHAPES))]
    slots = max(slots, -(-(experts + 1) // Topology.parse(topology).num_gpus))
    count, top_k = int(rng.integers(6, 15)), int(rng.integers(1, experts + 1))
    pull = rng.random(experts) ** 3
    ids = np.argsort(-(rng.random((count, 1, experts)) + pull), axis=2)[:, :, :top_k].astype(np.int16)
    ids[rng.random(ids.shape) < rng.choice([0.0, 0.2])] = -1
    ids[0, 0, 0] = 0 if (ids[0, 0] == 0).sum() == 0 and ids[0, 0, 0] < 0 else ids[0, 0, 0]
    trace = Trace.of(ids, num_experts=experts, seq_id=rng.integers(0, 4, count))
    objective = Objective(
        execution="dispatch",
        dedup=str(rng.choice(["gpu", "node"])),  # type: ignore[arg-type]
        replica_policy=str(rng.choice(["fair", "same_gpu", "same_node"])),  # type: ignore[arg-type]
        ownership=str(rng.choice(["token", "sequence"])),  # type: ignore[arg-type]
        imbalance_weight=float(rng.choice([0.2, 2.0, 30.0])) if loads else 0.0,
        load_spread_weight=float(rng.choice([0.5, 5.0, 60.0])) if loads else 0.0,
    )
    constraints = Constraints(load_groups="sequences") if loads else Constraints()
    profile = Profile.of(trace, workers=1)
    return Problem(profile, Topology.parse(topology), slots, objective=objective, constraints=constraints)


def main() -> None:
    """Bound and enumerate, and count what is above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loads", action="store_true", help="with weights of imbalance and spread")
    asked = parser.parse_args()
    rng, above, begin = np.random.default_rng(asked.seed), 0, time.process_time()
    known: dict[tuple[int, int, int], Ints] = {}
    reached: list[float] = []
    for _ in range(asked.problems):
        problem = random_problem(rng, asked.loads)
        key = (problem.num_experts, problem.num_gpus, problem.slots_per_gpu)
        if key not in known:
            known[key] = tables_of(*key)
        search = Search(problem, Limits(work=WORK), workers=1)
        search.bound(lower_bound(problem))
        raise_bound(problem, search)
        bound, best = search.outcome().bound, optimum(problem, known[key])
        assert bound is not None
        if bound > best + ROUNDING * max(1.0, best):
            above += 1
            print(f"above: {bound} > {best}\n{problem}", flush=True)
        if best > 0:
            reached.append(bound / best)
    took = time.process_time() - begin
    print(f"{asked.problems:,} problems, {above} bounds above the optimum; mean bound / optimum {np.mean(reached):.3f}")
    print(f"{took:.0f} s of CPU time")


if __name__ == "__main__":
    main()
