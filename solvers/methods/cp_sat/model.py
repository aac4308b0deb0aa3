"""The CP-SAT model of a placement problem: one boolean per layer, expert and replica pattern, rounded costs.

Every coefficient of a cost is rounded down, so the model's objective is never above the problem's, and neither is its
bound. What is left out (nothing but the standard errors of loads, which tangents replace) is never negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.methods.cp_sat.loads import LoadTerms, Scale
from solvers.methods.cp_sat.patterns import ReplicaPatterns
from solvers.methods.cp_sat.traffic import TrafficTerms

__all__ = ["PlacementModel"]

Replicas = npt.NDArray[np.int64]
Table = npt.NDArray[np.int32]
DEPTH = 3  # experts after the first by whose patterns symmetry is broken: each multiplies the clauses by the patterns
ROUNDING = 1e-14  # of the coefficients' sum: what float arithmetic may add before they are rounded down


class PlacementModel:
    """The model of some layers, the others as they are in a map.

    Parameters
    ----------
    problem : Problem
    patterns : ReplicaPatterns
    rows : range
        Layers to decide.
    around : (L, E, G) int64
        Replicas of the map that the other layers keep.
    """

    def __init__(self, problem: Problem, patterns: ReplicaPatterns, rows: range, around: Replicas) -> None:
        from ortools.sat.python import cp_model

        self.problem, self.patterns, self.rows, self.around = problem, patterns, rows, around
        self.cp = cp_model.CpModel()
        self.has = {
            (row, e): {int(p): self.cp.new_bool_var("") for p in np.flatnonzero(patterns.allowed[row, e])}
            for row in rows
            for e in range(problem.num_experts)
        }
        self._places()
        self._break_symmetry()
        parts = (problem, patterns, rows, around, self.cp, self.has)
        traffic = TrafficTerms(*parts)
        self.scale = Scale.of(problem, traffic)
        self.loads = LoadTerms(*parts, self.scale, traffic.constant)
        costs = {number: rounded for number, cost in traffic.cost.items() if (rounded := self.scale.down(cost))}
        crossing = [self.cp.get_bool_var_from_proto_index(number) for number in costs]
        whole, ones = cp_model.LinearExpr.weighted_sum, [1] * len(self.loads.terms)
        self.cp.minimize(whole([*crossing, *self.loads.terms], [*costs.values(), *ones]))

    def _places(self) -> None:
        """One pattern per expert, room on every GPU, groups on one node."""
        problem, patterns, cp = self.problem, self.patterns, self.cp
        for ways in self.has.values():
            cp.add_exactly_one(ways.values())
        for row in self.rows:
            of_row = [self.has[row, e] for e in range(problem.num_experts)]
            for g, room in enumerate(problem.capacity.tolist()):
                held = [(v, int(patterns.replicas[p, g])) for ways in of_row for p, v in ways.items()]
                cp.add(sum(count * v for v, count in held if count) <= room)
            for group in problem.constraints.groups:
                if row not in np.arange(problem.num_layers)[problem.rows_of(group)].reshape(-1):
                    continue
                for n in range(problem.topology.num_nodes):
                    first, *others = (
                        sum(v for p, v in of_row[e].items() if patterns.on_node[p, n]) for e in group.experts
                    )
                    for other in others:
                        cp.add(first == other)

    def _break_symmetry(self) -> None:
        """Of plans that differ by the names of equal GPUs, keep one: expert after expert, the first of each orbit."""
        self._orbits: dict[int, list[tuple[int, Any]]] = {}
        whole = len(self.rows) == self.problem.num_layers
        if len(self.patterns.renamed) == 1 or not whole:
            return
        coupled = self.problem.objective.execution == "context_coherent"
        for row in self.rows[:1] if coupled else self.rows:
            self._forbid_images(row, 0, self.patterns.renamed, [])

    def _forbid_images(self, row: int, expert: int, names: npt.NDArray[np.int64], chosen: list[Any]) -> None:
        if len(names) == 1 or expert == self.problem.num_experts or len(chosen) > DEPTH:
            return
        smallest = names.min(axis=0)
        for p, literal in self.has[row, expert].items():
            if smallest[p] < p:
                self.cp.add_bool_or([*(v.negated() for v in chosen), literal.negated()])
            else:
                self._forbid_images(row, expert + 1, names[names[:, p] == p], [*chosen, literal])

    def canonical(self, replicas: Replicas) -> npt.NDArray[np.int64]:
        """Return the patterns (L, E) of a map, with GPUs renamed as the model wants them."""
        number = self.patterns.numbers(replicas)
        renamed = self.patterns.renamed
        if len(renamed) == 1 or len(self.rows) < len(number):
            return number
        coupled = self.problem.objective.execution == "context_coherent"
        for first in range(1 if coupled else len(number)):
            images = renamed[:, number[first]]
            best = renamed[np.lexsort(images.T[::-1])[0]]
            part = slice(None) if coupled else slice(first, first + 1)
            number[part] = best[number[part]]
        return number

    def touch(self, replicas: Replicas) -> None:
        """Add tangents to the standard errors of loads at replicas (L, E, G): exact there, below elsewhere."""
        self.loads.touch(replicas)

    def hint(self, replicas: Replicas) -> None:
        """Start from a map's replicas (L, E, G)."""
        number = self.canonical(replicas)
        self.cp.clear_hints()  # type: ignore[no-untyped-call]  # the library has few types
        for (row, e), ways in self.has.items():
            for p, literal in ways.items():
                self.cp.add_hint(literal, int(number[row, e] == p))

    def table(self, holds: Any) -> Table:
        """Return the map (L, S) of a solution; `holds` gives a literal's value."""
        problem = self.problem
        replicas = self.around.copy()
        for (row, e), ways in self.has.items():
            replicas[row, e] = self.patterns.replicas[next(p for p, literal in ways.items() if holds(literal))]
        table = np.full((problem.num_layers, problem.num_gpus, problem.slots_per_gpu), -1, np.int32)
        for row in range(problem.num_layers):
            for g in range(problem.num_gpus):
                held = np.repeat(np.arange(problem.num_experts), replicas[row, :, g])
                table[row, g, : len(held)] = held
        return table.reshape(problem.num_layers, -1)

    def bound(self, objective: float) -> float:
        """Return the bound of the problem's objective that one of the model's objective proves."""
        return objective / self.scale.factor + self.loads.constant - ROUNDING * self.scale.range
