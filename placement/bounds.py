"""What no plan can beat, in an instant: row and column bounds, tokens per slot, the load that can't be avoided."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement.cost import home_share
from placement.problem import Problem

__all__ = ["hop_costs", "load_floor", "lower_bound", "room"]

Array = npt.NDArray[np.float64]


def lower_bound(problem: Problem) -> float:
    """Return a lower bound of the problem's objective.

    ``context_coherent``: a pair (i, j) stays on a GPU only if i and j are both there, and a GPU has room for C experts
    of a layer: at most the C largest entries of row i of ``A[l]`` stay, and likewise of column j. With copies, each
    copy carries its share of the row, so the bound holds too.

    ``dispatch``: a token's experts need at least ``ceil(K / C)`` GPUs, one of which may be its home; without
    deduplication, the assignments that stay at home are at most those of the C experts that each home calls most.

    What does not stay on a GPU costs at least the cheapest hop, what does not stay on a node at least the cheapest hop
    between nodes. The load terms cost at least what `load_floor` says.

    References
    ----------
    ``docs/bounds.md``.
    """
    objective = problem.objective
    if not objective.traffic_weight or problem.num_gpus == 1:
        return load_floor(problem)
    near, far = hop_costs(problem)
    gpus, nodes = room(problem)
    traffic = near * _away(problem, gpus, False) + (far - near) * _away(problem, nodes, True)
    return objective.traffic_weight * traffic + load_floor(problem)


def hop_costs(problem: Problem) -> tuple[float, float]:
    """Return the least cost of a hop to another GPU, and of one to another node (never less than the former)."""
    topology = problem.topology
    if topology.num_gpus == 1:
        return 0.0, 0.0
    near = float(topology.hop_cost[~np.eye(topology.num_gpus, dtype=bool)].min())
    other_node = topology.node_of_gpu[:, None] != topology.node_of_gpu[None, :]
    return near, float(topology.hop_cost[other_node].min()) if other_node.any() else near


def room(problem: Problem) -> tuple[int, int]:
    """Return the slots per layer of the largest GPU and of the largest node."""
    per_node = np.bincount(problem.topology.node_of_gpu, weights=problem.capacity)
    return int(problem.capacity.max()), int(per_node.max())


def load_floor(problem: Problem) -> float:
    """Return what the load terms cost at least: the least largest load that any plan reaches in each layer."""
    objective, cap = problem.objective, problem.constraints.load_cap
    floor = objective.imbalance_weight * float((problem.least_max_load - 1).mean())
    if cap is not None:
        floor += objective.load_excess_weight * float(np.maximum(problem.least_max_load - cap, 0).mean())
    return floor


def _away(problem: Problem, slots: int, nodes: bool) -> float:
    """Return the least traffic, in the objective's unit, that leaves its GPU (or node)."""
    if nodes and problem.topology.num_nodes == 1:
        return 0.0
    objective = problem.objective
    if objective.execution == "context_coherent":
        affinity = problem.profile.affinity
        assert affinity is not None
        total = float(affinity.sum())
        return (total - _kept(affinity, slots)) / total if total else 0.0
    if objective.dedup == "none":
        return _assignments_away(problem, slots, nodes)
    sample = problem.profile.sample
    assert sample is not None
    present = (sample.topk_ids >= 0).sum(axis=2)
    blocks = -(-present // max(slots, 1))
    return float(np.maximum(blocks - 1, 0).sum() / max(int((present > 0).sum()), 1))


def _kept(affinity: npt.NDArray[np.int64], slots: int) -> float:
    """Return an upper bound of the pair weight that stays inside blocks with so many slots per layer."""
    slots = min(slots, affinity.shape[1])
    by_row = np.sort(affinity, axis=2)[:, :, -slots:].sum(axis=(1, 2))
    by_column = np.sort(affinity, axis=1)[:, -slots:, :].sum(axis=(1, 2))
    return float(np.minimum(by_row, by_column).sum())


def _assignments_away(problem: Problem, slots: int, nodes: bool) -> float:
    """Dispatch without deduplication: the share of assignments that are not served at home."""
    load, topology = problem.profile.load, problem.topology
    homes = home_share(problem)
    if homes is None:
        homes = np.full((*load.shape, topology.num_gpus), 1 / topology.num_gpus)
    called: Array = load[:, :, None] * homes
    if nodes:
        starts = np.flatnonzero(np.r_[True, np.diff(topology.node_of_gpu) != 0])
        called = np.add.reduceat(called, starts, axis=2)
    slots = min(slots, problem.num_experts)
    kept = np.sort(called, axis=1)[:, -slots:].sum(axis=(1, 2))
    if problem.capacity.sum() == problem.num_experts:
        kept = np.minimum(kept, called.max(axis=2).sum(axis=1))  # every expert in one place
    return float(1 - kept.sum() / load.sum())
