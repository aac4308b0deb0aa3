"""Replica patterns: every way to spread one expert's replicas over the GPUs, and what renaming GPUs makes of them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.shares import home_share, shares_by_home
from placement.loads.policies import replica_share
from solvers.arrange.symmetry import renamings

__all__ = ["ReplicaPatterns", "count_patterns", "interchangeable"]

Array = npt.NDArray[np.float64]
Replicas = npt.NDArray[np.int64]


def _most_replicas(problem: Problem) -> int:
    """Return how many replicas of one expert there is room for."""
    most = 1 + int(problem.capacity.sum()) - problem.num_experts
    return min(most, problem.num_gpus) if problem.constraints.distinct_replicas else most


def count_patterns(problem: Problem) -> int:
    """Return an upper bound of the number of patterns: sets of GPUs, or multisets where replicas may share a GPU.

    Slots without end on a GPU are not left out, so that the count needs no enumeration.
    """
    G, sizes = problem.num_gpus, range(1, _most_replicas(problem) + 1)
    if problem.constraints.distinct_replicas:
        return sum(math.comb(G, size) for size in sizes)
    return sum(math.comb(G + size - 1, size) for size in sizes)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplicaPatterns:
    """All patterns of a problem. What an expert does to loads and traffic depends on its pattern alone.

    Attributes
    ----------
    problem : Problem
    replicas : (P, G) int64
        Replicas on each GPU, single replicas first.
    """

    problem: Problem
    replicas: Replicas

    @classmethod
    def of(cls, problem: Problem) -> ReplicaPatterns:
        """Enumerate; see `count_patterns` for how many there are."""
        distinct = problem.constraints.distinct_replicas
        choose = itertools.combinations if distinct else itertools.combinations_with_replacement
        gpus = range(problem.num_gpus)
        chosen = [gpu for size in range(1, _most_replicas(problem) + 1) for gpu in choose(gpus, size)]
        replicas = np.array([np.bincount(gpu, minlength=problem.num_gpus) for gpu in chosen])
        return cls(problem=problem, replicas=replicas[(replicas <= problem.capacity).all(axis=1)])

    @cached_property
    def allowed(self) -> npt.NDArray[np.bool_]:
        """Whether pins, exclusions and groups let expert e of layer l have pattern p, (L, E, P)."""
        problem, here = self.problem, self.replicas > 0
        pinned = (~problem.pinned[:, :, None] | here).all(axis=3)
        kept = np.asarray(~(~problem.allowed[:, :, None] & here).any(axis=3) & pinned)
        one_node = self.on_node.sum(axis=1) == 1
        for group in problem.constraints.groups:
            rows = np.arange(problem.num_layers)[problem.rows_of(group)].reshape(-1, 1)
            kept[rows, list(group.experts)] &= one_node
        return kept

    @cached_property
    def on_node(self) -> npt.NDArray[np.bool_]:
        """Whether pattern p has a replica on node n, (P, N)."""
        topology = self.problem.topology
        member = topology.node_of_gpu[:, None] == np.arange(topology.num_nodes)
        return np.asarray(self.replicas @ member > 0)

    @cached_property
    def fair(self) -> Array:
        """Share of an expert's tokens on each GPU with an equal split, (P, G)."""
        share: Array = self.replicas / self.replicas.sum(axis=1, keepdims=True)
        return share

    @cached_property
    def levels(self) -> Array:
        """The shares that a GPU may have of an expert with an equal split, rising, (n,)."""
        return np.unique(self.fair[self.fair > 0])

    def share(self, layer: int) -> Array:
        """Return the expected share of each expert's tokens on each GPU by pattern, in a layer, (E, P, G)."""
        problem, homes = self.problem, home_share(self.problem)
        shape = (problem.num_experts, *self.replicas.shape)
        of_layer = None if homes is None else np.broadcast_to(homes[layer][:, None], shape)
        replicas = np.broadcast_to(self.replicas, shape)
        return replica_share(replicas, problem.objective.replica_policy, problem.topology.node_of_gpu, of_layer)

    @cached_property
    def turns(self) -> Array:
        """What each home h adds to the mean share of a pattern on each GPU, homes drawn at random, (G, P, G)."""
        share = shares_by_home(self.problem, self.replicas)
        added: Array = share - share.mean(axis=0)
        return added

    def assignment_cost(self, layer: int) -> Array:
        """Return the traffic of each expert by pattern under dispatch without deduplication, (E, P)."""
        problem, (P, G) = self.problem, self.replicas.shape
        at_home = np.broadcast_to(np.eye(G)[:, None], (G, P, G))
        replicas = np.broadcast_to(self.replicas, (G, P, G))
        share = replica_share(replicas, problem.objective.replica_policy, problem.topology.node_of_gpu, at_home)
        by_home = np.einsum("hpg,hg->hp", share, problem.topology.hop_cost)
        homes = home_share(problem)
        per_token: Array = (
            np.tile(by_home.mean(axis=0), (problem.num_experts, 1)) if homes is None else homes[layer] @ by_home
        )
        cost: Array = per_token * (problem.profile.load[layer] / problem.profile.load.sum())[:, None]
        return cost

    @cached_property
    def _number(self) -> dict[bytes, int]:
        return {row.tobytes(): number for number, row in enumerate(self.replicas)}

    def numbers(self, replicas: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """Return the pattern of each expert from its replicas (..., G)."""
        flat = np.ascontiguousarray(replicas, dtype=np.int64).reshape(-1, self.replicas.shape[1])
        return np.array([self._number[row.tobytes()] for row in flat]).reshape(replicas.shape[:-1])

    @cached_property
    def renamed(self) -> npt.NDArray[np.int64]:
        """Pattern that each renaming of interchangeable GPUs makes of each pattern, (r, P), the identity first."""
        names = interchangeable(self.problem)
        return np.stack([self.numbers(self.replicas[:, np.argsort(name)]) for name in names])


def interchangeable(problem: Problem) -> npt.NDArray[np.int64]:
    """Return the renamings of GPUs that leave the objective as it is, (r, G), the identity first.

    Sampled or recorded tokens have homes of their own, so that under dispatch GPUs are interchangeable only where equal
    shares of the tokens are expected on each. Under ``same_node``, nodes have to stay together.
    """
    objective, node = problem.objective, problem.topology.node_of_gpu
    replayed = objective.execution == "dispatch" and objective.dedup != "none" and objective.traffic_weight > 0
    if replayed or home_share(problem) is not None:
        return np.arange(problem.num_gpus)[None]
    names = renamings(problem)
    if objective.replica_policy != "same_node":
        return names
    together = node[:, None] == node
    kept: npt.NDArray[np.int64] = names[[np.array_equal(together[np.ix_(name, name)], together) for name in names]]
    return kept
