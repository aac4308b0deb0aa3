"""What no plan can beat, in an instant: row and column bounds, tokens per slot, the load that can't be avoided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement.cost.kernels.largest import sum_largest
from placement.cost.shares import home_share
from placement.problem.problem import Problem
from traces.support.content import ByContent
from traces.support.kinds import checked
from traces.support.parallel import map_threads

__all__ = ["Level", "least_traffic_by_layer", "levels_of", "load_floor", "lower_bound", "most_kept"]

Array = npt.NDArray[np.float64]
MAX_LEVELS = 3
HEAP_SHARE = 32  # of the entries of a row: a heap of fewer is faster than a partition


@dataclass(frozen=True, kw_only=True, eq=False)
class Level(ByContent):
    """Blocks of GPUs: a hop from one block to another costs `cost` more than what finer levels say.

    Attributes
    ----------
    cost : float
        Above 0.
    block_of_gpu : (G,) int64
        Blocks 0, 1, ...
    blocks : int
        At least 2.
    room : int
        Slots per layer of the largest block.
    fair : float
        Fair share of a layer's load of the fastest block.
    """

    cost: float
    block_of_gpu: npt.NDArray[np.int64]
    blocks: int
    room: int
    fair: float


def levels_of(problem: Problem) -> tuple[Level, ...]:
    """Return levels that add up to at most the cost of any hop: ``d[g,h] >= sum of the costs that part g and h``.

    GPUs that are joined by chains of hops cheaper than t form the blocks of level t; a hop from one block to another
    costs at least t, so ``t - (the t before)`` may be counted for it. For two tiers these are the GPUs and the nodes;
    of arbitrary costs, the `MAX_LEVELS` largest steps are kept.

    References
    ----------
    The subdominant ultrametric, Gower and Ross, Applied Statistics 18 (1969).
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    gpus = problem.num_gpus
    if gpus == 1:
        return ()
    hop = np.minimum(problem.topology.hop_cost, problem.topology.hop_cost.T)
    tree = linkage(squareform(hop, checks=False), "single")
    heights = np.unique(tree[:, 2])
    steps = np.diff(heights, prepend=0.0)
    wanted = np.sort(np.argsort(-steps, kind="stable")[:MAX_LEVELS])
    result, before = [], 0.0
    for height in heights[wanted]:
        # Joined below this height: `fcluster` joins up to and including its threshold.
        block = fcluster(tree, np.nextafter(height, -np.inf), "distance") - 1
        block = np.unique(block, return_inverse=True)[1].astype(np.int64)
        if height > before:
            room = np.bincount(block, weights=problem.capacity).max()
            fair = np.bincount(block, weights=problem.topology.fair_share).max()
            level = Level(
                cost=float(height - before),
                block_of_gpu=block,
                blocks=int(block.max()) + 1,
                room=int(room),
                fair=float(fair),
            )
            result.append(level)
            before = float(height)
    return tuple(result)


@checked
def lower_bound(problem: Problem) -> float:
    """Return a lower bound of the problem's objective.

    ``context_coherent``: a pair (i, j) stays on a GPU only if i and j are both there, and a GPU has room for C experts
    of a layer: at most the C largest entries of row i of ``A[l]`` stay, and likewise of column j. With replicas, each
    replica carries its share of the row, so the bound holds too.

    ``dispatch``: a token's experts need at least ``ceil(K / C)`` GPUs, one of which may be its home; without
    deduplication, the assignments that stay at home are at most those of the C experts that each home calls most.

    The same holds for nodes, and for blocks of GPUs of any costs (`levels_of`). The load terms cost at least what
    `load_floor` says.

    References
    ----------
    ``docs/bounds.md``.
    """
    weight = problem.objective.traffic_weight
    if not weight or problem.num_gpus == 1:
        return load_floor(problem)
    return weight * sum(level.cost * _away(problem, level) for level in levels_of(problem)) + load_floor(problem)


def load_floor(problem: Problem) -> float:
    """Return what the load terms cost at least: the least largest load and the least excess that any plan reaches."""
    objective = problem.objective
    floor = objective.imbalance_weight * float((problem.least_max_load - 1).mean())
    return floor + objective.load_excess_weight * float(problem.least_load_excess.mean())


def most_kept(affinity: npt.NDArray[np.int64], room: int) -> Array:
    """Return an upper bound of the pair weight of each boundary that stays inside blocks with so much room, (L-1,)."""
    room = min(room, affinity.shape[1])
    sums = map_threads(
        # Rows of a copy: entries of a column are far apart, which is slower than to copy them.
        lambda counts: min(_sum_largest(counts, room), _sum_largest(np.ascontiguousarray(counts.T), room)),
        affinity,
    )
    return np.array(sums, dtype=np.float64)


def _sum_largest(counts: npt.NDArray[np.int64], room: int) -> int:
    """Return the sum of the `room` largest entries of every row: by a heap for few of many, else by a partition."""
    size = counts.shape[1]
    if room == size:
        return int(counts.sum())
    if room * HEAP_SHARE <= size:
        return int(sum_largest(counts, room))
    return int(np.partition(counts, size - room, axis=1)[:, size - room :].sum())


def least_traffic_by_layer(problem: Problem) -> Array:
    """Return what each boundary (context_coherent) or layer adds to the traffic term at least, (L-1,) or (L,).

    They add up to the traffic of `lower_bound`. The bound of a search may be higher, and is one of all layers together.
    """
    rows = problem.num_layers - (problem.objective.execution == "context_coherent")
    least: Array = np.zeros(rows)
    for level in levels_of(problem):
        away, whole = _least_away(problem, level)
        least += level.cost * away / whole
    return least


def _away(problem: Problem, level: Level) -> float:
    """Return the least traffic, in the objective's unit, that leaves its block."""
    away, whole = _least_away(problem, level)
    return float(away.sum()) / whole


def _least_away(problem: Problem, level: Level) -> tuple[Array, float]:
    """Return how many pairs, assignments or messages leave their block at least, (L-1,) or (L,), and all there are."""
    objective = problem.objective
    if objective.execution == "context_coherent":
        affinity = problem.profile.affinity
        assert affinity is not None
        return affinity.sum(axis=(1, 2)) - most_kept(affinity, level.room), problem.pair_weight or 1.0
    if objective.dedup == "none":
        return _assignments_away(problem, level), float(problem.profile.load.sum())
    sample = problem.profile.sample
    assert sample is not None
    there = sample.topk_ids >= 0
    # Most often all are, and a sum over so short an axis takes long.
    present = np.full(there.shape[:2], there.shape[2]) if there.all() else there.sum(axis=2)
    blocks = -(-present // level.room)
    return np.maximum(blocks - 1, 0).sum(axis=0).astype(np.float64), float(max(int((present > 0).sum()), 1))


def _assignments_away(problem: Problem, level: Level) -> Array:
    """Dispatch without deduplication: the assignments that are not served at home, (L,)."""
    load = problem.profile.load
    homes = home_share(problem)
    share = np.bincount(level.block_of_gpu) / problem.num_gpus
    if homes is not None:
        share = homes @ np.eye(level.blocks)[level.block_of_gpu]
    called: Array = load[:, :, None] * share
    room = min(level.room, problem.num_experts)
    kept = np.sort(called, axis=1)[:, -room:].sum(axis=(1, 2))
    if problem.capacity.sum() == problem.num_experts or problem.objective.replica_policy == "fair":
        # Every expert in one place, or replicas that are taken in turn, wherever a token's home is: of these, no more
        # is at home than of the best one.
        kept = np.minimum(kept, called.max(axis=2).sum(axis=1))
    away: Array = load.sum(axis=1) - kept
    return away
