"""Crossover of plans: the best chain of layers out of a pool of plans, by dynamic programming."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.score import score
from placement.cost.shares import expected_gpu_load, guarded_gpu_load, load_spread
from placement.plan.plan import replicas_on_gpu
from solvers.arrange.relabel import Relabelling
from solvers.methods.annealing.tables.kernels.places import add_slot_traffic

__all__ = ["Pool"]

# Shares of the spread's weight; closer where the tolerance is usually met. Chosen by trial.
SPREAD_PRICES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)

Array = npt.NDArray[np.float64]
Table = npt.NDArray[np.int32]


@dataclass
class Pool:
    """Plans of one context-coherent problem, and the best plan that takes each layer from one of them.

    The cost of a boundary depends on its two layers alone, and where GPUs are interchangeable each boundary may be
    relabelled freely, so the best combination of m plans is a shortest path: O(L m^2) boundary costs, each computed
    once.

    Attributes
    ----------
    problem : Problem
    limit : int
        Plans to keep at most; the oldest but the first leaves.
    """

    problem: Problem
    limit: int = 10
    tables: list[Table] = field(default_factory=list)
    _part: list[Array] = field(default_factory=list)
    _node_cost: list[Array] = field(default_factory=list)
    _spread: list[Array] = field(default_factory=list)
    _edge: dict[tuple[int, int, int], tuple[float, npt.NDArray[np.int64]]] = field(default_factory=dict)
    _key: list[int] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        self.relabelling = Relabelling.of(self.problem)
        affinity = self.problem.profile.affinity
        assert affinity is not None
        self._weight = affinity * (self.problem.objective.traffic_weight / max(self.problem.pair_weight, 1.0))

    def add(self, table: Table) -> None:
        """Add a plan, and cost its boundaries with all others."""
        if any(np.array_equal(table, other) for other in self.tables):
            return
        problem = self.problem
        replicas = replicas_on_gpu(table, problem.num_experts, problem.num_gpus)
        cost = problem.objective.imbalance_weight * expected_gpu_load(problem, replicas).max(axis=1)
        if problem.load_caps is not None:
            excess = np.maximum(guarded_gpu_load(problem, replicas) - problem.load_caps[:, None], 0).sum(axis=1)
            cost = cost + problem.objective.load_excess_weight * excess
        if len(self.tables) == self.limit:
            for items in (self.tables, self._part, self._node_cost, self._spread, self._key):
                del items[1]
        self.tables.append(table)
        number = np.take_along_axis(replicas.sum(axis=2), np.maximum(table, 0).astype(np.int64), axis=1)
        self._part.append(1.0 / np.maximum(number, 1))
        self._node_cost.append(cost / problem.num_layers)
        self._spread.append(problem.spread_weight * load_spread(problem, replicas) / problem.num_layers)
        self._key.append(self._count)
        self._count += 1

    def best(self) -> Table:
        """Return the best combination.

        The spread counts above a tolerance only, which is no sum over layers: several prices for it are tried.
        """
        spread = self.problem.spread_weight and self.problem.load_deviations is not None
        prices = SPREAD_PRICES if spread else (0.0,)
        found = [
            self._path([cost + price * spread for cost, spread in zip(self._node_cost, self._spread, strict=True)])
            for price in prices
        ]
        return min((self._assemble(path) for path in found), key=lambda table: score(self.problem, table).total)

    def _path(self, node_cost: list[Array]) -> list[int]:
        """Return which plan to take each layer from, by dynamic programming."""
        layers, size = self.problem.num_layers, len(self.tables)
        total = np.array([cost[0] for cost in node_cost])
        came_from = np.zeros((layers, size), np.int64)
        for layer in range(layers - 1):
            step = np.array([[total[p] + self._boundary(layer, p, q)[0] for q in range(size)] for p in range(size)])
            came_from[layer + 1] = step.argmin(axis=0)
            total = step.min(axis=0) + np.array([cost[layer + 1] for cost in node_cost])
        path = [int(total.argmin())]
        for layer in range(layers - 1, 0, -1):
            path.append(int(came_from[layer, path[-1]]))
        return path[::-1]

    def _boundary(self, layer: int, p: int, q: int) -> tuple[float, npt.NDArray[np.int64]]:
        """Return cost and names of the blocks for plan p in `layer` and plan q in the next."""
        key = (layer, self._key[p], self._key[q])
        if key not in self._edge:
            traffic = np.zeros((self.problem.num_gpus, self.problem.num_gpus))
            expert, following = self.tables[p][layer], self.tables[q][layer + 1]
            add_slot_traffic(
                self._weight[layer], expert, self._part[p][layer], following, self._part[q][layer + 1], traffic
            )
            if self.relabelling is None:
                identity = np.arange(self.problem.num_gpus)
                self._edge[key] = float((traffic * self.problem.topology.hop_cost).sum()), identity
            else:
                self._edge[key] = self.relabelling.best(traffic)
        return self._edge[key]

    def _assemble(self, path: list[int]) -> Table:
        """Join the layers of `path`, renaming GPUs along the way."""
        G, C = self.problem.num_gpus, self.problem.slots_per_gpu
        name = np.arange(G)
        rows = [self.tables[path[0]][0]]
        for layer in range(len(path) - 1):
            _, relative = self._boundary(layer, path[layer], path[layer + 1])
            name = name[relative]
            blocks = self.tables[path[layer + 1]][layer + 1].reshape(G, C)
            row = np.empty_like(blocks)
            row[name] = blocks
            rows.append(row.ravel())
        return np.stack(rows)
