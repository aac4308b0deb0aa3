"""The traffic of a CP-SAT model: booleans for what crosses, and what each costs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.methods.cp_sat.patterns import ReplicaPatterns
from solvers.methods.cp_sat.sizes import TokenGroups, near_hops

__all__ = ["Has", "TrafficTerms"]

Array = npt.NDArray[np.float64]
Has = dict[tuple[int, int], dict[int, Any]]  # (layer's row, expert) -> literal of each pattern
MAX_PARTS = 10_000  # least common multiple of the numbers of replicas: above it, shares are no small whole numbers


class TrafficTerms:
    """What the literals of a model cost in traffic.

    Parameters
    ----------
    problem : Problem
    patterns : ReplicaPatterns
    rows : range
        Layers that the model decides.
    around : (L, E, G) int64
        Replicas that the other layers keep.
    cp : CpModel
        Gets variables and constraints.
    has : dict
        Literals of the patterns, see `Has`.

    Attributes
    ----------
    cost : dict of int to float
        Cost of each variable, by its number, in units of the objective.
    constant : float
        What is paid in any case; costs may be negative.
    """

    def __init__(
        self, problem: Problem, patterns: ReplicaPatterns, rows: range, around: npt.NDArray[np.int64], cp: Any, has: Has
    ) -> None:
        self.problem, self.patterns, self.rows = problem, patterns, rows
        self.around, self.cp, self.has = around, cp, has
        self.constant = 0.0
        self.cost: dict[int, float] = {}
        self._levels: dict[tuple[int, int, int], list[tuple[int, Any]]] = {}
        self._room: dict[tuple[int, int, int, int, int, int], list[Any]] = {}
        if problem.objective.traffic_weight:
            self._build()

    def _build(self) -> None:
        objective = self.problem.objective
        if objective.execution == "context_coherent":
            for row in range(max(0, self.rows[0] - 1), min(self.rows[-1] + 1, self.problem.num_layers - 1)):
                self._pairs(row)
            self._partners_need_room()
        elif objective.dedup == "none":
            for row in self.rows:
                cost = objective.traffic_weight * self.patterns.assignment_cost(row)
                self._charge(row, cost)
        else:
            self._messages()

    def _charge(self, row: int, cost: Array) -> None:
        """Add what each expert costs by pattern, (E, P)."""
        for e in range(len(cost)):
            for p, literal in self.has[row, e].items():
                self.cost[literal.index] = self.cost.get(literal.index, 0.0) + float(cost[e, p])

    def _pairs(self, row: int) -> None:
        """Model the pairs of layers `row` and `row + 1`: a boolean for each two places that save something."""
        problem, patterns = self.problem, self.patterns
        affinity = problem.profile.affinity
        assert affinity is not None
        scale = problem.objective.traffic_weight / max(float(affinity.sum()), 1.0)
        saved, most = near_hops(problem)
        counts = affinity[row] * scale
        self.constant += float(counts.sum()) * most
        if row not in self.rows or row + 1 not in self.rows:
            free, fixed = (row, row + 1) if row in self.rows else (row + 1, row)
            weight, gain = (counts, saved) if free == row else (counts.T, saved.T)
            there = patterns.fair[patterns.numbers(self.around[fixed])]
            self._charge(free, -weight @ there @ gain.T @ patterns.fair.T)
            return
        near = np.argwhere(saved > 0).tolist()
        # What an expert has in common with those of the other layer: [layer, expert, GPU, level] -> by expert and GPU.
        for i, j in np.argwhere(affinity[row] > 0).tolist():
            partners: dict[tuple[int, int, int, int], dict[int, list[tuple[Any, float]]]] = {}
            for g, h in near:
                for (s, here), (t, there_too) in itertools.product(self._on(row, i, g), self._on(row + 1, j, h)):
                    both = self.cp.new_bool_var("")
                    share, other = patterns.levels[s], patterns.levels[t]
                    self.cost[both.index] = -float(counts[i, j] * saved[g, h] * share * other)
                    self.cp.add_implication(both, here)
                    self.cp.add_implication(both, there_too)
                    partners.setdefault((row, i, g, s), {}).setdefault(h, []).append((both, other))
                    partners.setdefault((row + 1, j, h, t), {}).setdefault(g, []).append((both, share))
            for (at, e, g, s), by_gpu in partners.items():
                self._tie(dict(self._on(at, e, g))[s], by_gpu)
                for h, several in by_gpu.items():
                    self._room.setdefault((at, e, g, s, h, row), []).extend(v for v, _ in several)

    def _on(self, row: int, expert: int, gpu: int) -> list[tuple[int, Any]]:
        """Return literals for the shares that an expert may have on a GPU, with the number of the share's level."""
        if (row, expert, gpu) not in self._levels:
            fair, found = self.patterns.fair, []
            for number, level in enumerate(self.patterns.levels):
                ways = [v for p, v in self.has[row, expert].items() if fair[p, gpu] == level]
                if len(ways) > 1:
                    literal = self.cp.new_bool_var("")
                    self.cp.add_exactly_one([*ways, literal.negated()])
                    ways = [literal]
                found += [(number, v) for v in ways]
            self._levels[row, expert, gpu] = found
        return self._levels[row, expert, gpu]

    def _tie(self, here: Any, by_gpu: dict[int, list[tuple[Any, float]]]) -> None:
        """Give a partner one share per GPU, and 1 in all at most: only where the expert itself is `here`."""
        for several in by_gpu.values():
            if len(several) > 1:
                self.cp.add_at_most_one([*(v for v, _ in several), here.negated()])
        if len(by_gpu) > 1:
            whole = math.lcm(*range(1, int(self.patterns.replicas.sum(axis=1).max()) + 1))
            if whole <= MAX_PARTS:
                parts = [(v, round(share * whole)) for several in by_gpu.values() for v, share in several]
                self.cp.add(sum(part * v for v, part in parts) <= whole * here)

    def _partners_need_room(self) -> None:
        """Add the row and column bound: an expert's partners on a GPU are no more than its slots."""
        for (at, e, g, s, h, _), partners in self._room.items():
            room = int(self.problem.capacity[h])
            if len(partners) > room:
                self.cp.add(sum(partners) <= room * dict(self._on(at, e, g))[s])

    def _messages(self) -> None:
        """Dispatch with deduplication: a boolean for each GPU, and node, that a group of tokens reaches."""
        problem, topology = self.problem, self.problem.topology
        G, hop, node = problem.num_gpus, topology.hop_cost, topology.node_of_gpu
        sample, by_node = problem.profile.sample, problem.objective.dedup == "node"
        assert sample is not None
        active = int((sample.topk_ids >= 0).any(axis=2).sum())
        scale = problem.objective.traffic_weight / max(active, 1)
        last_hop = hop[topology.entry_gpu[:, node], np.arange(G)] if by_node else hop
        first_hop = np.take_along_axis(hop, topology.entry_gpu, axis=1)
        for row in self.rows:
            groups = TokenGroups(self.patterns, row)
            for experts, serves, homes in zip(groups.experts, groups.serves, groups.homes, strict=True):
                ways = [[(v, int(serves[k, p])) for p, v in self.has[row, e].items()] for k, e in enumerate(experts)]
                self._reached(ways, np.arange(G), homes @ last_hop * scale)
                if by_node:
                    self._reached(ways, node, homes @ first_hop * scale)

    def _reached(self, ways: list[list[tuple[Any, int]]], part: npt.NDArray[np.int64], cost: Array) -> None:
        """Add a cost for each part of the GPUs that one of the experts, by its pattern, is served on."""
        for place in np.flatnonzero(cost > 0):
            here = [[v for v, g in choices if part[g] == place] for choices in ways]
            if len(ways) == 1:
                for v in here[0]:
                    self.cost[v.index] = self.cost.get(v.index, 0.0) + float(cost[place])
            elif any(here):
                reached = self.cp.new_bool_var("")
                self.cost[reached.index] = float(cost[place])
                for literals in here:
                    if literals:
                        self.cp.add_at_most_one([*literals, reached.negated()])
