"""The loads of a CP-SAT model: imbalance, excess above the cap, and the standard errors that tangents replace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.methods.cp_sat.patterns import ReplicaPatterns
from solvers.methods.cp_sat.traffic import Has, TrafficTerms

__all__ = ["LoadTerms", "Scale"]

Array = npt.NDArray[np.float64]
Replicas = npt.NDArray[np.int64]
BITS = 50  # of the largest objective: below the 53 that a float holds, in which CP-SAT reports its bound


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The power of two by which costs are multiplied before they are rounded down.

    Attributes
    ----------
    factor : float
    range : float
        What the objective may differ by at most.
    most : float
        What loads may cost at most.
    """

    factor: float
    range: float
    most: float

    @classmethod
    def of(cls, problem: Problem, traffic: TrafficTerms) -> Scale:
        """Choose the largest factor that CP-SAT's whole numbers allow."""
        objective = problem.objective
        largest = 1 / float(problem.topology.fair_share.min())
        deviations, moments = problem.load_deviations, problem.home_moments
        error = 0.0 if deviations is None else largest * float(np.linalg.norm(deviations, axis=2).sum())
        if moments is not None:
            error += largest * float(np.sqrt(np.diagonal(moments, axis1=1, axis2=2)).sum())
        most = objective.imbalance_weight * largest + problem.spread_weight * error
        if problem.load_caps is not None:
            guarded = largest + problem.load_margin * error
            most += objective.load_excess_weight * problem.num_gpus * guarded
        whole = most + abs(traffic.constant) + sum(map(abs, traffic.cost.values()))
        return cls(factor=2.0 ** (BITS - math.frexp(whole)[1]), range=whole, most=most)

    def down(self, cost: float) -> int:
        """Return a cost in whole numbers, rounded down."""
        return math.floor(cost * self.factor)


class LoadTerms:
    """What loads cost.

    Parameters
    ----------
    problem, patterns, rows, around, cp, has
        See `TrafficTerms`.
    scale : Scale

    Attributes
    ----------
    terms : list
        Variables of the model whose sum loads cost, scaled.
    constant : float
        What is paid in any case, in units of the objective.
    """

    def __init__(
        self,
        problem: Problem,
        patterns: ReplicaPatterns,
        rows: range,
        around: Replicas,
        cp: Any,
        has: Has,
        scale: Scale,
        constant: float,
    ) -> None:
        self.problem, self.patterns, self.rows = problem, patterns, rows
        self.around, self.cp, self.has = around, cp, has
        self.scale, self.constant = scale, constant
        self._build()

    def _build(self) -> None:
        """Add imbalance, excess and spread, in units of the objective; tangents make the errors of loads count."""
        problem, objective, cp = self.problem, self.problem.objective, self.cp
        L = problem.num_layers
        most = self.scale.down(self.scale.most / L) + 2  # of one layer
        self.terms: list[Any] = []
        self._excess: dict[tuple[int, int], Any] = {}
        self._spread: dict[int, Any] = {}
        relative = {row: self._relative(row) for row in self.rows} if problem.load_counts else {}
        for row, load in relative.items():
            if weight := objective.imbalance_weight / L:
                worst = cp.new_int_var(self.scale.down(weight * problem.least_max_load[row]), most, "")
                self.terms.append(worst)
                self.constant -= weight
                for g in range(problem.num_gpus):
                    cp.add(worst >= self._sum(row, weight * load[:, :, g]))
            if problem.load_caps is not None and np.isfinite(problem.load_caps[row]) and objective.load_excess_weight:
                for g in range(problem.num_gpus):
                    self._excess[row, g] = cp.new_int_var(0, most, "")
                    self._add_excess(row, g, load[:, :, g])
        self.terms += self._excess.values()
        if problem.spread_weight and self._varies:
            self._spread = {row: cp.new_int_var(0, most, "") for row in self.rows}
            above = cp.new_int_var(0, L * most, "")
            fixed = problem.spread_weight * (self._spread_around() - problem.spread_tolerance)
            cp.add(above >= sum(self._spread.values()) + self.scale.down(max(fixed, -self.scale.most)))
            self.terms.append(above)

    @property
    def _varies(self) -> bool:
        return self.problem.load_deviations is not None or self.problem.home_moments is not None

    def _spread_around(self) -> float:
        """Return what the layers that stay as they are add to the mean spread."""
        from placement.cost.shares import load_spread

        spread = load_spread(self.problem, self.around)
        return float(np.delete(spread, self.rows).sum()) / self.problem.num_layers

    def _relative(self, row: int) -> Array:
        """Return what each expert adds to the GPUs' relative loads by pattern, (E, P, G)."""
        relative: Array = self.patterns.share(row) / self.problem.topology.fair_share
        relative *= self.problem.relative_load[row][:, None, None]
        return relative

    def _sum(self, row: int, cost: Array) -> Any:
        """Return the sum of costs (E, P) over the patterns that the experts have."""
        from ortools.sat.python import cp_model

        terms = [
            (v, c) for e in range(len(cost)) for p, v in self.has[row, e].items() if (c := self.scale.down(cost[e, p]))
        ]
        return cp_model.LinearExpr.weighted_sum([v for v, _ in terms], [c for _, c in terms])

    def _add_excess(self, row: int, gpu: int, guarded: Array) -> None:
        weight = self.problem.objective.load_excess_weight / self.problem.num_layers
        assert self.problem.load_caps is not None
        cap = float(self.problem.load_caps[row])
        allowed = self.scale.down(max(-weight * cap, -self.scale.most))
        self.cp.add(self._excess[row, gpu] >= self._sum(row, weight * guarded) + allowed)

    def touch(self, replicas: Replicas) -> None:
        """Add tangents to the standard errors of loads at replicas (L, E, G): exact there, below elsewhere."""
        problem = self.problem
        if not self._varies or not (self._spread or (self._excess and problem.load_margin)):
            return
        number = self.patterns.numbers(replicas)
        experts = np.arange(problem.num_experts)
        for row in self.rows:
            # |v| is at least <v, v0> / |v0|, for every v: of the loads' deviations by group, and by the homes.
            along = np.zeros((problem.num_experts, *self.patterns.replicas.shape))
            square = np.zeros(problem.num_gpus)
            if problem.load_deviations is not None:
                deviations = problem.load_deviations[row]
                share = self.patterns.share(row) / problem.topology.fair_share
                by_gpu = share[experts, number[row]].T @ deviations  # (G, W)
                square += (by_gpu**2).sum(axis=1)
                along += np.einsum("ew,gw->eg", deviations, by_gpu)[:, None] * share
            if problem.home_moments is not None:
                turns = self.patterns.turns / problem.topology.fair_share
                here = turns[:, number[row]]  # (G, E, G)
                moved = problem.home_moments[row] @ here
                square += (here * moved).sum(axis=1).mean(axis=0)
                along += np.einsum("heg,hpg->epg", moved, turns) / problem.num_gpus
            error = np.sqrt(np.maximum(square, 0.0))
            if self._spread and error.any():
                root = problem.spread_weight / problem.num_layers / math.sqrt(problem.num_gpus)
                self.cp.add(self._spread[row] >= self._sum(row, root * along.sum(axis=2) / np.linalg.norm(error)))
            if problem.load_margin and self._excess:
                relative = self._relative(row)
                for g in np.flatnonzero(error) if (row, 0) in self._excess else ():
                    guarded = relative[:, :, g] + problem.load_margin * along[:, :, g] / error[g]
                    self._add_excess(row, int(g), guarded)
