"""Exact layer sweeps: with its neighbours fixed, a layer is a linear assignment problem.

References
----------
Jonker and Volgenant, Computing 38 (1987) for the assignment problem; ``docs/solvers.md``, section assignment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.shares import guarded_gpu_load, home_share
from placement.plan.plan import replicas_on_gpu
from solvers.arrange.conform import conform, pack
from solvers.arrange.in_order import in_order
from solvers.methods.assignment.kernels import add_layer_cost
from solvers.searching.search import Search
from solvers.searching.threads import run_together
from traces import Violations

__all__ = ["Assignment"]

Table = npt.NDArray[np.int32]
Array = npt.NDArray[np.float64]
Gpus = npt.NDArray[np.int64]
THREADED_EXPERTS = 64  # smaller assignment problems are done before a thread has started
# Sweeps without a better plan before a priced run ends; prices swing, so one bad sweep says little; chosen by trial.
PATIENCE = 30


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Alternating assignment of experts to slots.

    Odd and even layers take turns: each is placed optimally given its neighbours, until nothing improves. A load cap
    enters as a price per GPU and layer, raised where the load (with a load quantile, that quantile of it) is above the
    cap and lowered elsewhere. Imbalance, load spread and which experts peak together are not priced; they only decide
    between the plans of the sweeps. One replica of each expert.

    Attributes
    ----------
    restarts : int
        Runs: the first from the start plan (or the experts in order), the others from random plans.
    """

    restarts: int = 8

    name: ClassVar[str] = "assignment"
    summary: ClassVar[str] = (
        "Exact placement of one layer at a time (linear assignment), sweep by sweep; one replica per expert."
    )

    def __post_init__(self) -> None:
        found = Violations()
        if self.restarts < 1:
            found.add("option_range", "/options/restarts", f"{self.restarts} restarts.", "Give at least 1.")
        found.raise_if_any()

    def supports(self, problem: Problem) -> str | None:
        """Costs that add up over experts once the neighbouring layers are fixed, and one replica of each expert."""
        objective, constraints = problem.objective, problem.constraints
        if objective.execution == "dispatch" and objective.dedup != "none":
            return f"with dedup {objective.dedup!r} the cost of an expert depends on the others of its layer."
        if constraints.groups:
            return "it knows no groups."
        if problem.sizes.survival is not None:
            return "it does not know what has to survive."
        if (problem.pinned.sum(axis=2) > 1).any():
            return "it places one replica of each expert, but an expert is pinned to several GPUs."
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Sweep from several starts until done."""
        first = in_order(problem, search)
        search.offer(first)
        if search.start is not None:
            first = np.asarray(search.start, dtype=np.int32)
        sweeps = _Sweeps(problem, search)
        for restart in range(self.restarts):
            if restart:
                rng = np.random.default_rng([search.seed, restart])
                dealt = np.arange(problem.num_experts) % problem.num_gpus
                table = conform(problem, np.stack([rng.permutation(dealt) for _ in range(problem.num_layers)]), search)
            else:
                table = first
            if not sweeps.run(replicas_on_gpu(table, problem.num_experts, problem.num_gpus).argmax(axis=2)):
                return
            if sweeps.separable:
                # Independent layers, each placed optimally: other starts end in plans of the same cost.
                alone = problem.load_deviations is None and not problem.objective.imbalance_weight
                if problem.capacity.sum() == problem.num_experts and alone:
                    search.exhausted()
                return


class _Sweeps:
    """Cost tables of a problem, and runs of sweeps over them that share one budget."""

    def __init__(self, problem: Problem, search: Search) -> None:
        self.problem, self.search = problem, search
        self.spent = self.step = 0
        self.hop = problem.topology.hop_cost
        self.slot_gpu = np.repeat(np.arange(problem.num_gpus), problem.capacity)
        self.experts = np.tile(np.arange(problem.num_experts), (problem.num_layers, 1))
        self.load: Array = problem.relative_load[:, :, None] / problem.topology.fair_share
        self.barred = ~problem.allowed
        for pin in problem.constraints.pins:
            elsewhere = np.arange(problem.num_gpus) != pin.gpu
            self.barred[problem.rows_of(pin), pin.expert] |= elsewhere
        objective = problem.objective
        self.priced = problem.load_caps is not None and objective.load_excess_weight > 0
        self.pairs = self.fixed = None
        if objective.execution == "context_coherent" and (affinity := problem.profile.affinity) is not None:
            self.pairs = affinity * (objective.traffic_weight / max(problem.pair_weight, 1.0))
        else:
            homes, load = home_share(problem), problem.profile.load
            share = np.full(problem.num_gpus, 1 / problem.num_gpus) if homes is None else homes
            self.fixed = objective.traffic_weight * (load / load.sum())[:, :, None] * (share @ self.hop)
        self.separable = self.pairs is None and not self.priced

    def run(self, gpu: Gpus) -> bool:
        """Sweep from GPUs (L, E) until nothing improves; return False once the budget is used up."""
        price = np.zeros((self.problem.num_layers, self.problem.num_gpus))
        best, since, sweep = np.inf, 0, 0
        while since < (PATIENCE if self.priced else 1):
            in_budget = self._sweep(gpu, price)
            self.step += 1
            table = pack(self.experts, gpu, self.problem.num_gpus, self.problem.slots_per_gpu)
            total = self.search.offer(table, self.step)
            if not in_budget:
                return False
            since = 0 if total < best - 1e-12 * abs(total) else since + 1
            best = min(best, total)
            sweep += 1
            if self.priced:
                self._set_prices(gpu, price, sweep)
        return True

    def _sweep(self, gpu: Gpus, price: Array) -> bool:
        """Place all even layers, then all odd ones (changes `gpu`); False if the budget ends on the way."""
        from scipy.optimize import linear_sum_assignment

        def place(layers: range) -> None:
            for layer in layers:
                if self.search.done:
                    return
                cost = self._cost(layer, gpu) + price[layer] * self.load[layer]
                cost[self.barred[layer]] = np.inf
                expert, slot = linear_sum_assignment(cost[:, self.slot_gpu])
                gpu[layer, expert] = self.slot_gpu[slot]

        E, L = self.problem.num_experts, self.problem.num_layers
        for first in range(2):
            layers = range(first, L, 2)
            # Layers of one kind know nothing of each other: they are placed at once, whoever places them.
            if self.search.work is not None:
                layers = layers[: max(0, -(-(self.search.work - self.spent) // E))]
            threads = self.search.workers if E >= THREADED_EXPERTS else 1
            parts = [layers[worker::threads] for worker in range(threads)]
            run_together(self.search, [partial(place, part) for part in parts if part])
            self.spent += len(range(first, L, 2)) * E
            if self.search.progress(self.spent) >= 1.0:
                return False
        return True

    def _cost(self, layer: int, gpu: Gpus) -> Array:
        """Return the cost of each expert of a layer on each GPU, given where its neighbours are, (E, G)."""
        if self.pairs is None:
            assert self.fixed is not None
            fixed: Array = self.fixed[layer].copy()
            return fixed
        cost: Array = np.zeros((self.problem.num_experts, self.problem.num_gpus))
        if layer > 0:
            add_layer_cost(self.pairs[layer - 1], gpu[layer - 1], False, self.hop, cost)
        if layer + 1 < self.problem.num_layers:
            add_layer_cost(self.pairs[layer], gpu[layer + 1], True, self.hop, cost)
        return cost

    def _set_prices(self, gpu: Gpus, price: Array, sweep: int) -> None:
        """Take a subgradient step of the prices (changes `price`)."""
        objective, layers = self.problem.objective, self.problem.num_layers
        caps = self.problem.load_caps
        assert caps is not None
        row = np.arange(layers)[:, None]
        reached = np.zeros(price.shape)
        np.add.at(reached, (row, gpu), self.load[row, self.experts, gpu])
        if self.problem.load_margin:
            # The margin depends on the whole GPU; its part of the excess raises the price of load as well.
            reached = guarded_gpu_load(self.problem, (gpu[:, :, None] == np.arange(self.problem.num_gpus)).astype(int))
        most = objective.load_excess_weight / layers  # above it, missing the cap is the cheaper choice
        spread = np.array([self._cost(layer, gpu).std() for layer in range(layers)])
        unit = np.minimum(spread / self.load.mean(axis=(1, 2)), most)
        unit[unit == 0] = most
        np.clip(price + (unit / sweep**0.5)[:, None] * (reached - caps[:, None]), 0.0, most, out=price)
