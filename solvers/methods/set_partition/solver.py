"""Proven optima of fan-out without replicas: which sets of experts the GPUs of a layer hold, decided exactly.

References
----------
Set partitioning and column generation: ``docs/methods/set_partition.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.bounds import least_traffic_by_layer
from placement.cost.shares import load_spread
from placement.plan.plan import replicas_on_gpu
from solvers.methods.eplb.start import base_plan
from solvers.methods.set_partition.columns import SetColumns
from solvers.methods.set_partition.gpu_sets import GpuSets, count_sets, sets_fit
from solvers.searching.search import Search
from solvers.searching.threads import each_layer
from traces import Violations

__all__ = ["SetPartition"]

Array = npt.NDArray[np.float64]
Table = npt.NDArray[np.int32]
KEPT = 100_000_000  # costs of all layers that are kept for the next price of the spread; 0.4 to 0.8 GB
PRICES = 8  # of the spread that are tried; halvings: the price is known to 1/128
# Relative to the tolerance: a spread this near to it settles the price; chosen by trial.
SETTLED = 1e-3
# Sets times GPUs that a core prices and looks at a few times; chosen by trial.
PRICED_PER_S = 4_000_000
PROGRAM_SHARE = 0.5  # of the time for the linear programs, the rest for whole numbers; chosen by trial
# Columns of a program in whole numbers, pass by pass; chosen by trial.
MOST = (1_000, 4_000, 16_000, 64_000)


@dataclass(frozen=True, kw_only=True)
class SetPartition:
    """Column generation over all sets of experts that a GPU may hold, then whole numbers, layer by layer.

    Under dispatch with one message per GPU, what a GPU costs depends on its own experts only. So a layer is a choice of
    one set per GPU, each expert in one of them. Its linear program is close to the optimum, and tells which of the sets
    can be in a better plan: few enough to decide. The spread, which counts above a tolerance on its mean over layers,
    gets a price per layer; each price gives a bound.

    Attributes
    ----------
    max_sets : int
        Largest layer to try, in sets of experts times GPUs; each takes some 20 bytes per worker, and a few nanoseconds
        per 64 tokens.
    """

    max_sets: int = 50_000_000

    name: ClassVar[str] = "set_partition"
    summary: ClassVar[str] = (
        "Column generation over the sets of experts that a GPU may hold: proven fan-out without replicas."
    )

    def __post_init__(self) -> None:
        found = Violations()
        if self.max_sets < 1:
            found.add("option_range", "/options/max_sets", f"{self.max_sets} sets.", "Give at least 1.")
        found.raise_if_any()

    def supports(self, problem: Problem) -> str | None:
        """Dispatch with one message per GPU, one replica of each expert, and few sets of experts per GPU."""
        if reason := sets_fit(problem):
            return reason
        if problem.constraints.groups:
            return "it knows no groups."
        if problem.sizes.survival is not None:
            return "it does not know what has to survive."
        if problem.objective.activated_weight:
            return "it does not count activated experts."
        if (sets := count_sets(problem)) > self.max_sets:
            # Of thousands of experts, more than any float.
            many = f"{float(sets):.3g}" if sets < 10**300 else "more than 1e300"
            return f"a layer has {many} sets of experts times GPUs, more than max_sets = {self.max_sets:.3g}."
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Start from the best plan so far, or EPLB's; raise the bound, then offer what whole numbers give."""
        if search.best is None:
            search.offer(base_plan(problem, search))
        _Run(problem, search).run()


class _Run:
    """One search: the columns of its layers, and what each layer costs at least."""

    def __init__(self, problem: Problem, search: Search) -> None:
        assert search.best is not None
        self.problem, self.search, self.table = problem, search, search.best.copy()
        objective, L = problem.objective, problem.num_layers
        # What is known without looking at sets.
        self.floor = objective.traffic_weight * least_traffic_by_layer(problem)
        self.floor += objective.load_excess_weight / L * problem.least_load_excess
        self.floor += objective.imbalance_weight / L * problem.least_max_load
        self.spread_counts = problem.spread_weight > 0 and problem.load_deviations is not None
        self.entries = count_sets(problem)
        self.keep = self.entries * L <= KEPT
        self.layers: list[SetColumns | None] = [None] * L
        self.bounds = self.floor.copy()
        self.price = 0.0

    def run(self) -> None:
        """Settle the price of the spread by linear programs, then decide in whole numbers, over ever more columns."""
        problem, search = self.problem, self.search
        free = problem.spread_tolerance
        self.price = 1.0 if self.spread_counts and not free else 0.0
        if not self.keep:  # a layer at a time, as its costs take much memory, and each for as long as it needs
            each_layer(problem, search, self._alone)
            search.offer(self.table, 1)
            return
        programs, low, high, best = search.part(PROGRAM_SHARE, 0), 0.0, 1.0, (-np.inf, self.price)
        for number in range(PRICES):
            each_layer(problem, programs.part(1.0, number, work_share=1 / PRICES), self._program)
            best = max(best, (self._total(), self.price))
            spread = sum(columns.spread for columns in self.layers if columns is not None)
            settled = spread >= free if self.price == 1.0 else spread <= free and self.price == 0.0
            if settled or not self.spread_counts or programs.done or abs(spread - free) <= SETTLED * free:
                break
            if self.price == 0.0:
                self._set_price(1.0)
                continue
            low, high = (self.price, high) if spread > free else (low, self.price)
            self._set_price((low + high) / 2)
        if best[1] != self.price:
            self._set_price(best[1])
        self._decide(search, 1)
        if self.spread_counts and self.price < 1.0 and self._wide():
            # Whole plans spread more than fractions of several: what they cost beyond the tolerance, they cost in full.
            self._set_price(1.0)
            self._decide(search, 1 + len(MOST))

    def _decide(self, search: Search, rank: int) -> None:
        """Decide all layers in whole numbers at the present price, and offer the plan after each pass."""
        for number, most in enumerate(MOST):
            if search.done or search.proven:
                return
            part = search.part(0.95, rank + number, work_share=1 / len(MOST))
            each_layer(self.problem, part, partial(self._whole, most=most))
            search.offer(self.table, rank + number)

    def _wide(self) -> bool:
        """Whether the plan's spread is above the tolerance."""
        replicas = replicas_on_gpu(self.table, self.problem.num_experts, self.problem.num_gpus)
        return float(load_spread(self.problem, replicas).mean()) > self.problem.spread_tolerance

    def _set_price(self, price: float) -> None:
        """Change the price of the spread: bounds of different prices don't add up."""
        self.price, self.bounds = price, self.floor.copy()

    def _alone(self, part: Search, layer: int) -> None:
        """Decide a layer, unless what is left of the whole time does not even price its sets."""
        left = self.search.remaining_s
        if left is None or left * PRICED_PER_S > self.entries:
            self._whole(self.search.part(0.99, layer, work_share=1 / self.problem.num_layers), layer, MOST[-1])

    def _program(self, part: Search, layer: int) -> None:
        """Solve a layer's linear programs."""
        if part.progress(self.entries) >= 1.0:  # a round takes more than there is
            return
        columns = self._columns(layer)
        columns.bound_by_programs(part, partial(self._found, layer, columns))

    def _whole(self, part: Search, layer: int, most: int) -> None:
        """Decide a layer over at most so many columns."""
        if part.progress(self.entries) >= 1.0:
            return
        columns = self._columns(layer)
        columns.decide(most, part, partial(self._found, layer, columns))
        self.table[layer] = columns.row
        if not self.keep:
            self.layers[layer] = None

    def _columns(self, layer: int) -> SetColumns:
        """Return the layer's columns at the present price."""
        columns = self.layers[layer]
        if columns is None:
            row = self.table[layer].reshape(self.problem.num_gpus, -1)
            columns = SetColumns(
                GpuSets(self.problem, layer),
                self.price,
                row,
                weight=self.problem.objective.imbalance_weight / self.problem.num_layers,
                floor=float(self.problem.least_max_load[layer]),
            )
            self.layers[layer] = columns
        elif columns.price != self.price:
            columns.set_price(self.price)
        return columns

    def _found(self, layer: int, columns: SetColumns) -> None:
        """Take note of a layer's bound, and report that of the whole."""
        self.bounds[layer] = max(self.floor[layer], columns.bound)
        self.search.bound(self._total())

    def _total(self) -> float:
        """Return the bound of the whole: the imbalance is the largest load minus 1, the spread is above a tolerance."""
        free = self.price * self.problem.spread_weight * self.problem.spread_tolerance
        return float(self.bounds.sum()) - free - self.problem.objective.imbalance_weight
