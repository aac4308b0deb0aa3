"""What no plan can beat: the instant row and column bound on inter-layer traffic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement.problem import Problem

__all__ = ["lower_bound"]


def lower_bound(problem: Problem) -> float | None:
    """Return a lower bound of the problem's objective, or None where none is known.

    For ``context_coherent``, a pair (i, j) stays on a GPU only if i and j are both there, and a GPU has room for C
    experts of a layer: at most the C largest entries of row i of ``A[l]`` stay, and likewise of column j. With copies,
    each copy carries its share of the row, so the bound holds too. What does not stay on a GPU costs at least the
    cheapest hop, what does not stay on a node at least the cheapest hop between nodes. The other terms are never
    negative.

    References
    ----------
    ``docs/problem.md``, section Bounds (row bound).
    """
    affinity = problem.profile.affinity
    objective = problem.objective
    if objective.execution != "context_coherent" or affinity is None or not affinity.size:
        return None
    topology = problem.topology
    different = ~np.eye(topology.num_gpus, dtype=bool)
    total = float(affinity.sum())
    if topology.num_gpus == 1 or not total:
        return 0.0
    other_node = topology.node_of_gpu[:, None] != topology.node_of_gpu[None, :]
    near = float(topology.hop_cost[different].min())
    far = float(topology.hop_cost[other_node].min()) if other_node.any() else near
    room_gpu = int(problem.capacity.max())
    room_node = int(np.bincount(topology.node_of_gpu, weights=problem.capacity).max())
    cross_gpu = total - _kept(affinity, room_gpu)
    cross_node = total - _kept(affinity, room_node)
    bound = near * cross_gpu + max(far - near, 0.0) * cross_node
    return objective.traffic_weight * bound / total


def _kept(affinity: npt.NDArray[np.int64], room: int) -> float:
    """Return an upper bound of the pair weight that stays inside blocks with `room` slots per layer."""
    room = min(room, affinity.shape[1])
    by_row = np.sort(affinity, axis=2)[:, :, -room:].sum(axis=(1, 2))
    by_column = np.sort(affinity, axis=1)[:, -room:, :].sum(axis=(1, 2))
    return float(np.minimum(by_row, by_column).sum())
