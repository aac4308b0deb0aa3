"""The least load spread of all layers, together with the imbalance that a smaller one would cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from placement import Problem
from solvers.bounds.load_variance import LeastVariance, LoadVariance
from solvers.bounds.loads import spare_in_layer, spread_counts, spread_price_share

__all__ = ["LayerSpread", "SpreadBound"]

MOST_STEPS = 40  # 20 prove 97 % of what 40 do; chosen by trial
MAX_EXPERTS = 1536  # as of a pair of layers


class LayerSpread:
    """A lower bound of what the spread of a layer costs, and imbalance above its least, improved by `iterate`.

    Loads that are not even might vary less. But they cost: so the bound is the least, over the imbalance m, of its cost
    above the floor and ``weight * sqrt(even - per_imbalance * m)``. The first is piecewise linear in m, the second
    concave, so the least is where either has a corner.

    Parameters
    ----------
    problem : Problem
    layer : int
        Row of the profile.

    Attributes
    ----------
    value : float
        The best bound so far, for this layer.
    iterations : int
    """

    def __init__(self, problem: Problem, layer: int) -> None:
        assert problem.load_deviations is not None
        slots = problem.num_experts + spare_in_layer(problem)
        shares = problem.relative_load[layer]
        self._variance = LoadVariance(problem.load_deviations[layer], shares, problem.num_gpus, slots)
        objective, part = problem.objective, spread_price_share(problem)
        self._weight = problem.spread_weight
        self._least = float(problem.least_max_load[layer]) - 1
        self._top_price, self._excess_price, self._free = part * objective.imbalance_weight, 0.0, np.inf
        if problem.load_caps is not None and np.isfinite(problem.load_caps[layer]):
            self._excess_price = part * objective.load_excess_weight
            # What an imbalance may be at no more excess than the floor has.
            self._free = float(problem.load_caps[layer] - 1 + problem.least_load_excess[layer])
        self.value, self.iterations = 0.0, 0

    def iterate(self, count: int, stop: Callable[[], bool] = lambda: False) -> float:
        """Take `count` steps, or fewer if `stop` says so, and return the best bound so far."""
        if self._variance.varies:
            self._variance.advance(count, stop)
            self.value = max(self.value, self.cost(self._variance.bound()))
        self.iterations += count
        return self.value

    def cost(self, proven: LeastVariance) -> float:
        """Return the least cost of spread and imbalance, above what the floor of loads has."""
        corners = [self._least]
        if self._least < self._free < np.inf:
            corners.append(self._free)
        if proven.per_imbalance > 0:
            corners.append(max(self._least, proven.even / proven.per_imbalance))
        return min(self._cost_at(imbalance, proven) for imbalance in corners)

    def _cost_at(self, imbalance: float, proven: LeastVariance) -> float:
        above = self._top_price * (imbalance - self._least)
        if self._excess_price:
            above += self._excess_price * max(0.0, imbalance - self._free)
        return above + self._weight * float(np.sqrt(max(0.0, proven.even - proven.per_imbalance * imbalance)))


class SpreadBound:
    """A lower bound of what spread and imbalance cost above the floor of loads, from bounds of layers.

    Parameters
    ----------
    problem : Problem
        One whose `spread_counts`.
    """

    patience = 20  # steps

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._found = np.zeros(problem.num_layers)

    def passes(self) -> list[tuple[list[int], int]]:
        """Return the layers, and the steps that each may take."""
        fits = self.problem.num_experts <= MAX_EXPERTS and spread_counts(self.problem)
        return [(list(range(self.problem.num_layers)), MOST_STEPS)] if fits else []

    def first_round(self) -> list[int]:
        """Return none: a layer's first steps bring most of what there is."""
        return []

    def is_quick(self, layer: int) -> bool:
        """Whether a few steps pay early: there is no first round."""
        return False

    def size(self, layer: int) -> int:
        """Return the rows of a layer's matrix."""
        return self.problem.num_experts

    def least_chunk(self, layer: int) -> int:
        """Return the steps between two bounds, at least."""
        return 8

    def kept_bytes(self, layer: int) -> int:
        """Return what a layer takes while it waits: its matrices."""
        return 24 * self.size(layer) ** 2

    def step_cost(self, layer: int) -> int:
        """Return what a step takes beside those of the matrix: nothing."""
        return 0

    def relaxation(self, layer: int) -> LayerSpread:
        """Return the bound of a layer, to be improved."""
        return LayerSpread(self.problem, layer)

    def found(self, layer: int, cost: float) -> None:
        """Take note that spread and imbalance of a layer cost at least so much."""
        self._found[layer] = max(self._found[layer], cost)

    def total(self) -> float:
        """Return the bound; a spread within the tolerance costs nothing."""
        tolerated = self.problem.spread_weight * self.problem.spread_tolerance
        return max(0.0, float(self._found.mean()) - tolerated)
