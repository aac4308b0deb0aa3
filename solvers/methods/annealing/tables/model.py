"""What all annealing runs over the same items share: what they weigh, what they have in common, where they may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.shares import home_share
from solvers.arrange.relabel import tier_costs
from solvers.methods.annealing.tables.kernels.places import Pairs, add_place, add_traffic
from solvers.methods.annealing.tables.kernels.swaps import Items, Weights

__all__ = ["ItemModel"]

Table = npt.NDArray[np.int32]
Array = npt.NDArray[np.float64]


class ItemModel:
    """What all runs over the same set of items share.

    Parameters
    ----------
    problem : Problem
    table : (L, S) integers
        A valid map: which experts, replicas and empty slots there are. Items are its slots.
    """

    def __init__(self, problem: Problem, table: npt.NDArray[np.integer[Any]]) -> None:
        self.problem = problem
        self.expert = np.array(table, dtype=np.int64)
        L, S = self.expert.shape
        held = self.expert >= 0
        replicas = np.stack([np.bincount(row[row >= 0], minlength=problem.num_experts) for row in self.expert])
        row = np.arange(L)[:, None]
        part = np.where(held, 1.0 / np.maximum(replicas[row, self.expert], 1), 0.0)
        self.load = np.ascontiguousarray(
            (problem.relative_load[row, self.expert] * part)[:, :, None] / problem.topology.fair_share
        )
        if len(set(problem.topology.speed.tolist())) == 1:
            self.load = np.ascontiguousarray(self.load[:, :, :1])
        self.coupled = problem.objective.execution == "context_coherent"
        weight = problem.objective.traffic_weight
        if self.coupled and (affinity := problem.profile.affinity) is not None:
            scale = weight / max(problem.pair_weight, 1.0)
            self.forward = np.empty((L - 1, S, S))
            in_order = np.arange(problem.num_experts)
            for layer in range(L - 1):
                rows, columns = self.expert[layer], self.expert[layer + 1]
                block = affinity[layer]
                if not (np.array_equal(rows, in_order) and np.array_equal(columns, in_order)):
                    block = block[np.ix_(rows, columns)]
                np.multiply(block, scale * part[layer][:, None], out=self.forward[layer])
                self.forward[layer] *= part[layer + 1]
            self.fixed = None
        else:
            self.forward = np.empty((0, S, S))
            self.fixed = self._fixed_cost(part) * weight
        near, far = tier_costs(problem.topology)
        self.tiers = np.empty(0)
        if self.coupled and near is not None and far is not None:
            self.tiers = np.array([near, far - near])
        self.pairs = Pairs(
            forward=self.forward,
            backward=np.ascontiguousarray(self.forward.transpose(0, 2, 1)),
            hop=problem.topology.hop_cost,
            tiers=self.tiers,
            node_of_gpu=problem.topology.node_of_gpu,
        )
        self.covariance, self.margin = np.empty((0, S, S)), np.empty(0)
        if problem.load_deviations is not None:
            # Relative to the mean fair share: the spread is exact for GPUs of equal speed, the margin for any.
            deviations = problem.load_deviations[row, self.expert] * (part * problem.num_gpus)[:, :, None]
            self.covariance = np.ascontiguousarray(deviations @ deviations.transpose(0, 2, 1))
            if problem.load_margin:
                self.margin = problem.load_margin / (problem.num_gpus * problem.topology.fair_share)
        # Only replicas can collide; -1 spares the look-up for all others.
        several = held & (replicas[row, self.expert] > 1) & problem.constraints.distinct_replicas
        self.collide = np.where(several, self.expert, -1)
        lock, allowed = self._locks(table)
        caps = problem.load_caps
        self.items = Items(
            pairs=self.pairs,
            load=self.load,
            cap=np.full(L, np.inf) if caps is None else caps,
            covariance=self.covariance,
            margin=self.margin,
            expert=self.collide,
            lock=lock,
            allowed=allowed,
            check_allowed=allowed.size > 1,
            who=self.expert,
        )
        self.scale = self._scale()

    def weights(self, ramp: float) -> Weights:
        """Return what loads cost, with a share of the excess weight."""
        problem, layers, spreads = self.problem, self.problem.num_layers, len(self.covariance) > 0
        root = problem.num_gpus**0.5
        return Weights(
            excess=0.0 if problem.load_caps is None else ramp * problem.objective.load_excess_weight / layers,
            largest=problem.objective.imbalance_weight / layers,
            spread=problem.spread_weight / layers / root if spreads else 0.0,
            spread_free=problem.spread_tolerance * root * layers,
        )

    @property
    def _by_node(self) -> bool:
        return len(self.tiers) > 0 and self.problem.topology.num_nodes > 1

    def _fixed_cost(self, part: Array) -> Array:
        """Dispatch without deduplication: what an item costs on each GPU, whatever the others do, (L, G, S)."""
        problem = self.problem
        homes = home_share(problem)
        row = np.arange(problem.num_layers)[:, None]
        hop = problem.topology.hop_cost
        if homes is None:
            per_gpu = np.tile(hop.mean(axis=0), (problem.num_layers, problem.num_experts, 1))
        else:
            per_gpu = homes @ hop
        total = problem.profile.load.sum()
        cost = per_gpu[row, self.expert] * (problem.profile.load[row, self.expert] * part / total)[:, :, None]
        return np.ascontiguousarray(cost.transpose(0, 2, 1))

    def _locks(self, table: npt.NDArray[np.integer[Any]]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
        """Return what may move how far (see the kernel), and where each item may be."""
        problem = self.problem
        L, S = self.expert.shape
        lock = np.zeros((L, S), np.int8)
        if problem.is_free:
            return lock, np.ones((1, 1, 1), bool)
        gpu = np.arange(S) // problem.slots_per_gpu
        for group in problem.constraints.groups:
            rows = problem.rows_of(group)
            lock[rows] = np.where(np.isin(self.expert[rows], group.experts), 1, lock[rows])
        for pin in problem.constraints.pins:
            rows = problem.rows_of(pin)
            lock[rows] = np.where((self.expert[rows] == pin.expert) & (gpu == pin.gpu), 2, lock[rows])
        # Slots beyond a GPU's capacity hold nothing and stay so.
        position = np.arange(S) % problem.slots_per_gpu
        lock[:, position >= problem.capacity[gpu]] = 2
        allowed = problem.allowed[np.arange(L)[:, None], self.expert]
        allowed[self.expert < 0] = True
        return lock, np.ascontiguousarray(allowed)

    def _scale(self) -> float:
        """Return the spread of a swap's cost in a random arrangement: the unit of temperature."""
        rng = np.random.default_rng(0)
        L, S = self.expert.shape
        gpu = np.stack([rng.permutation(np.arange(S) // self.problem.slots_per_gpu) for _ in range(L)])
        place = self.place(gpu)
        layer, p, q = rng.integers(L, size=4000), rng.integers(S, size=4000), rng.integers(S, size=4000)
        a, b = gpu[layer, p], gpu[layer, q]
        delta = place[layer, b, p] - place[layer, a, p] + place[layer, a, q] - place[layer, b, q]
        if self._by_node:
            n, m = (self.problem.num_gpus + self.problem.topology.node_of_gpu[gpus] for gpus in (a, b))
            delta += place[layer, m, p] - place[layer, n, p] + place[layer, n, q] - place[layer, m, q]
        spread = float(np.std(delta[a != b])) if (a != b).any() else 0.0
        if spread == 0.0:  # nothing but load matters
            weight = self.problem.objective.load_excess_weight + self.problem.objective.imbalance_weight
            spread = float(self.load.std()) * weight / L
        return max(spread, 1e-15)

    def traffic(self, layer: int, gpu: npt.NDArray[np.int64], following: npt.NDArray[np.int64]) -> Array:
        """Return the pair weight between the GPUs of two layers, (G, G)."""
        result = np.zeros((self.problem.num_gpus, self.problem.num_gpus))
        add_traffic(self.forward[layer], gpu, following, result)
        return result

    def place(self, gpu: npt.NDArray[np.int64]) -> Array:
        """Return the cost of each item on each GPU, given where all others are, (L, G, S); see the kernel for tiers."""
        if self.fixed is not None:
            return self.fixed.copy()
        topology = self.problem.topology
        rows = topology.num_gpus + (topology.num_nodes if self._by_node else 0)
        place = np.zeros((len(gpu), rows, gpu.shape[1]))
        add_place(self.pairs, gpu, place)
        return place

    def gpu_load(self, gpu: npt.NDArray[np.int64]) -> Array:
        """Return the load of each GPU relative to its fair share, (L, G)."""
        L, S = gpu.shape
        load = np.zeros((L, self.problem.num_gpus))
        index = np.arange(L)[:, None]
        at = self.load[:, :, 0] if self.load.shape[2] == 1 else self.load[index, np.arange(S)[None, :], gpu]
        np.add.at(load, (index, gpu), at)
        return load
