"""How large a model is: tokens that cost the same whatever the plan, and the booleans that a problem needs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.replay.replay import POLICIES, homes_of
from solvers.methods.cp_sat.kernels import destinations
from solvers.methods.cp_sat.patterns import ReplicaPatterns

__all__ = ["TokenGroups", "count_booleans", "near_hops"]

Array = npt.NDArray[np.float64]


class TokenGroups:
    """Sampled tokens of a layer that cost the same whatever the plan: same experts, each served alike.

    Attributes
    ----------
    experts : list of tuple of int
        Experts of each group.
    serves : list of (K, P) int16
        GPU that serves each expert by pattern.
    homes : (n, G) int64
        Tokens of each group by home rank.
    """

    def __init__(self, patterns: ReplicaPatterns, layer: int) -> None:
        problem = patterns.problem
        sample, G = problem.profile.sample, problem.num_gpus
        assert sample is not None
        ids = np.sort(sample.topk_ids[:, layer], axis=1)
        homes = homes_of(problem.objective, G, sample.rows, sample.seq_id, sample.source_rank)
        counts = patterns.replicas.sum(axis=1)
        gpus = np.zeros((len(counts), int(counts.max())), np.int64)
        for row, replicas in zip(gpus, patterns.replicas, strict=True):
            row[: replicas.sum()] = np.repeat(np.arange(G), replicas)
        policy, node = POLICIES[problem.objective.replica_policy], problem.topology.node_of_gpu
        serves = destinations(ids, sample.rows, homes, layer, gpus, counts, policy, node)
        key = np.concatenate([ids, serves.reshape(len(ids), -1)], axis=1)
        unique, group = np.unique(key, axis=0, return_inverse=True)
        K = ids.shape[1]
        held = unique[:, :K] >= 0
        self.experts = [tuple(row[kept].tolist()) for row, kept in zip(unique[:, :K], held, strict=True)]
        self.serves = [row.reshape(K, -1)[kept].astype(np.int64) for row, kept in zip(unique[:, K:], held, strict=True)]
        self.homes = np.zeros((len(unique), G), np.int64)
        np.add.at(self.homes, (group.ravel(), homes), 1)

    @property
    def booleans(self) -> int:
        """Booleans for the GPUs and nodes that the groups' tokens may reach."""
        return sum(len(np.unique(serves)) for experts, serves in self._several())

    def _several(self) -> Iterable[tuple[tuple[int, ...], npt.NDArray[np.int64]]]:
        return ((e, s) for e, s in zip(self.experts, self.serves, strict=True) if len(e) > 1)


def near_hops(problem: Problem) -> tuple[Array, float]:
    """Return what a message from GPU g to h saves against the dearest hop, (G, G), and that hop's cost."""
    hop = problem.topology.hop_cost
    most = float(hop.max())
    return most - hop, most


def count_booleans(problem: Problem, patterns: ReplicaPatterns, layers: int, limit: int) -> int:
    """Return the booleans that `layers` consecutive layers need, at most; counting ends above `limit`."""
    objective, allowed = problem.objective, patterns.allowed
    window = min(layers, problem.num_layers)
    by_layer = allowed.sum(axis=(1, 2))
    by_boundary = np.zeros(max(0, problem.num_layers - 1), np.int64)
    if objective.traffic_weight and objective.execution == "context_coherent":
        affinity = problem.profile.affinity
        assert affinity is not None
        saves = (near_hops(problem)[0] > 0).astype(np.int64)
        levels = np.stack([(allowed @ (patterns.fair == share)) for share in patterns.levels], axis=3).sum(axis=3)
        if len(patterns.levels) > 1:
            by_layer = by_layer + levels.sum(axis=(1, 2))
        for row in range(len(by_boundary)):
            ways = levels[row].astype(np.int64) @ saves @ levels[row + 1].T
            by_boundary[row] = (ways * (affinity[row] > 0)).sum()
    elif objective.traffic_weight and objective.dedup != "none":
        for row in range(problem.num_layers):
            if by_layer.sum() > limit:
                break
            by_layer[row] += TokenGroups(patterns, row).booleans
    one = np.convolve(by_layer, np.ones(window, np.int64), "valid")
    two = np.convolve(by_boundary, np.ones(window - 1, np.int64), "valid") if window > 1 else np.zeros_like(one)
    return int((one + two).max())
