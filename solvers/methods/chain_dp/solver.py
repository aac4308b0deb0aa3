"""The true optimum of small context-coherent problems: a shortest path through all arrangements of every layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.feasibility import broken_constraints
from solvers.arrange.conform import pack
from solvers.arrange.in_order import in_order
from solvers.arrange.symmetry import Arrangements, count_arrangements, renamings
from solvers.methods.chain_dp.kernels import extend
from solvers.searching.search import Search
from solvers.searching.threads import run_together
from traces import Violations

__all__ = ["ChainDp"]

Floats = npt.NDArray[np.float64]
Table = npt.NDArray[np.int32]
MAX_EXPERTS = 24  # two GPUs of 12 have 2.7 million arrangements
PRICE_STEPS = 16  # halvings of the interval of prices for the spread; the price is known to 1e-5 then


@dataclass(frozen=True, kw_only=True)
class ChainDp:
    """Dynamic programming over layers, with the names of equal GPUs counted once.

    The cost of a layer and of the boundary to the next one depend on two arrangements only, so the best sequence of
    arrangements is a shortest path. The spread of loads, which counts above a tolerance on its mean over layers, gets a
    price per layer instead; each price gives a bound, and the best plan of all prices is offered.

    Attributes
    ----------
    max_steps : int
        Largest problem to try, in ``(L - 1) * arrangements * classes * E``.
    """

    max_steps: int = 20_000_000_000

    name: ClassVar[str] = "chain_dp"
    summary: ClassVar[str] = (
        "Dynamic programming over all arrangements of each layer: proven optimal; small models only."
    )

    def __post_init__(self) -> None:
        found = Violations()
        if self.max_steps < 1:
            found.add("option_range", "/options/max_steps", f"{self.max_steps} steps.", "Give at least 1.")
        found.raise_if_any()

    def supports(self, problem: Problem) -> str | None:
        """Context-coherent problems with few arrangements; one replica of each expert."""
        if problem.objective.execution != "context_coherent":
            return "it follows tokens from layer to layer (execution 'context_coherent')."
        if problem.sizes.survival is not None:
            return "it does not know what has to survive."
        if (problem.pinned.sum(axis=2) > 1).any():
            return "it places one replica of each expert, but an expert is pinned to several GPUs."
        if problem.num_experts > MAX_EXPERTS and problem.num_gpus > 1:
            return f"{problem.num_experts} experts have too many arrangements (at most {MAX_EXPERTS} experts)."
        ways = count_arrangements(problem)
        # Each class has at most as many members as there are renamings.
        steps = max(1, problem.num_layers - 1) * ways * -(-ways // len(renamings(problem))) * problem.num_experts
        if steps > self.max_steps:
            return (
                f"{problem.num_experts} experts on {problem.num_gpus} GPUs have {ways:.3g} arrangements, "
                f"{steps:.3g} steps in all, more than max_steps = {self.max_steps:.3g}."
            )
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the plan in order, then the optimum with its bound."""
        search.offer(in_order(problem, search))
        path = _ShortestPath(problem, search)
        # A fair split over replicas is an average of plans without replicas; only where load counts may replicas be
        # better.
        exact = problem.num_slots == problem.num_experts or not problem.load_counts
        weight, free = problem.spread_weight, problem.spread_tolerance
        low, high, price = 0.0, 1.0, 0.0
        for step in range(PRICE_STEPS if path.spread is not None else 1):
            found = path.best(price)
            if found is None:
                return
            value, table, spread = found
            search.offer(table, step + 1)
            if exact:
                search.bound(value - price * weight * free)
            if path.spread is None or (price == 0.0 and spread <= free) or (price == 1.0 and spread >= free):
                return
            if price in (0.0, 1.0):
                price = 1.0 if price == 0.0 else 0.5
                continue
            low, high = (price, high) if spread > free else (low, price)
            price = (low + high) / 2


class _ShortestPath:
    """The chain of one problem: what the classes of arrangements cost in every layer, and the search for the path."""

    def __init__(self, problem: Problem, search: Search) -> None:
        self.problem, self.search = problem, search
        self.all = Arrangements.of(problem)
        affinity = problem.profile.affinity
        assert affinity is not None
        self.traffic = affinity * (problem.objective.traffic_weight / max(float(affinity.sum()), 1.0))
        self.spread: Floats | None = None
        self.cost = self._layer_costs()

    def _layer_costs(self) -> Floats:
        """Return what each class of arrangements costs in each layer by its loads, (L, m); fill `spread` likewise."""
        problem, objective = self.problem, self.problem.objective
        chosen = self.all.gpu[self.all.representative]
        L, m, G = problem.num_layers, len(chosen), problem.num_gpus
        cost = np.zeros((L, m))
        deviations = problem.load_deviations
        if deviations is not None and problem.spread_weight:
            self.spread = np.zeros((L, m))
        one_hot = (chosen[:, :, None] == np.arange(G)) / problem.topology.fair_share
        for layer in range(L):
            load = np.einsum("e,meg->mg", problem.relative_load[layer], one_hot)
            cost[layer] = objective.imbalance_weight * (load.max(axis=1) - 1)
            if deviations is not None:
                by_gpu = np.einsum("meg,ew->mgw", one_hot, deviations[layer])
                variance = (by_gpu**2).sum(axis=2)
                load += problem.load_margin * np.sqrt(variance)
                if self.spread is not None:
                    self.spread[layer] = np.sqrt(variance.mean(axis=1))
            if (caps := problem.load_caps) is not None:
                cost[layer] += objective.load_excess_weight * np.maximum(load - caps[layer], 0).sum(axis=1)
        if not problem.is_free:
            for state in range(m):
                cost[:, state] += np.where(self._allowed(chosen[state]), 0.0, np.inf)
        return cost / L

    def _allowed(self, gpu: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
        """Return in which layers an arrangement keeps the constraints, (L,)."""
        problem = self.problem
        experts = np.arange(problem.num_experts)
        one_hot = gpu[:, None] == np.arange(problem.num_gpus)
        kept: npt.NDArray[np.bool_] = np.all(problem.allowed[:, experts, gpu], axis=1)
        kept &= ~np.any(problem.pinned & ~one_hot, axis=(1, 2))
        for group in problem.constraints.groups:
            kept[problem.rows_of(group)] &= len(set(problem.topology.node_of_gpu[gpu[list(group.experts)]])) == 1
        return kept

    def best(self, price: float) -> tuple[float, Table, float] | None:
        """Return value, map and mean spread of the best path at a price of the spread; None if interrupted."""
        problem, states = self.problem, self.all
        L = problem.num_layers
        cost = self.cost
        if self.spread is not None:
            cost = cost + price * problem.spread_weight / L * self.spread
        following = states.gpu[states.representative]
        value = cost[0]
        came_from = np.zeros((L, len(following)), np.int64)
        for layer in range(L - 1):
            step = np.empty(len(following))
            before = value[states.class_of]
            chunk = max(1, -(-len(following) // (8 * self.search.workers)))

            def task(
                first: int, layer: int = layer, before: Floats = before, step: Floats = step, chunk: int = chunk
            ) -> Callable[[], None]:
                def run() -> None:
                    if not self.search.done:
                        last = min(first + chunk, len(following))
                        arguments: tuple[Any, ...] = (step, came_from[layer + 1])
                        hop = problem.topology.hop_cost
                        extend(self.traffic[layer], hop, states.gpu, before, following, first, last, *arguments)

                return run

            run_together(self.search, [task(first) for first in range(0, len(following), chunk)])
            if self.search.done:
                return None
            value = step + cost[layer + 1]
        gpu = np.empty((L, problem.num_experts), np.int64)
        state, name = int(value.argmin()), np.arange(problem.num_gpus)
        least, chosen = float(value[state]), [state]
        gpu[-1] = following[state]
        for layer in range(L - 1, 0, -1):
            previous = int(came_from[layer, state])
            gpu[layer - 1] = name[states.gpu[previous]]
            name = name[states.names[states.renamed_by[previous]]]
            state = int(states.class_of[previous])
            chosen.append(state)
        experts = np.tile(np.arange(problem.num_experts), (L, 1))
        table = pack(experts, gpu, problem.num_gpus, problem.slots_per_gpu)
        assert not broken_constraints(problem, table).found
        spread = 0.0 if self.spread is None else float(self.spread[np.arange(L), chosen[::-1]].mean())
        return least, table, spread
