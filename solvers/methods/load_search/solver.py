"""Search of replicas and places by expected loads: what counts per expert allow, layer by layer.

References
----------
Kirkpatrick, Gelatt and Vecchi, Science 220 (1983) for annealing; the loads and the traffic are those of
`placement.score`; ``docs/solvers.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.shares import home_share
from solvers.arrange.conform import separate_replicas
from solvers.methods.load_balance.solver import balanced
from solvers.methods.load_search.kernels.moves import NUDGE, Layer, anneal_layer, layer_cost
from solvers.searching.kernels.random import State, seeded
from solvers.searching.search import Search
from solvers.searching.threads import run_together
from solvers.survival.effort import Effort
from solvers.survival.repair import alive_by_load, kept_alive
from solvers.survival.rule import alive_of
from traces import InputError

__all__ = ["LoadSearch"]

POLICIES = ("fair", "same_gpu", "same_node")
TRIALS_PER_SLOT = 400  # of a layer, in a round; chosen by trial
ROUND_STEPS = 4_000_000  # trials times GPUs of a layer and round: tenths of a second
MORE_ROUNDS = 4  # without a better plan, before a search without limits ends; chosen by trial
GAIN = 1e-7  # relative gain of a round that counts as none
Table = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LoadSearch:
    """Annealing of every layer on its own, on expected loads and expected traffic; replicas change places and owners.

    Attributes
    ----------
    hot, cold : float
        First and last temperature of a round, in shares of the price of a mean GPU load.
    """

    hot: float = 0.02
    cold: float = 0.0001

    name: ClassVar[str] = "load_search"
    summary: ClassVar[str] = "Search of replicas and places by expected loads and traffic: for counts without tokens."

    def __post_init__(self) -> None:
        if not 0 < self.cold <= self.hot:
            detail = f"Temperatures hot = {self.hot}, cold = {self.cold}."
            raise InputError.of("option_range", "/options/hot", detail, "Keep 0 < cold <= hot.")

    def supports(self, problem: Problem) -> str | None:
        """Dispatch with a message per expert, priced by loads alone; no pins, exclusions, groups or budgets."""
        objective, constraints = problem.objective, problem.constraints
        if objective.execution != "dispatch" or objective.dedup != "none" or objective.activated_weight:
            return "it prices a dispatch with a message per expert only (dedup 'none')."
        if constraints.pins or constraints.forbidden or constraints.groups or problem.replicas_limited:
            return "it knows no pins, exclusions, groups or budgets of replicas."
        if problem.load_deviations is not None or problem.home_moments is not None:
            return "it prices expected loads, not their errors."
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Search round by round, all layers in each; the best arrangement of each layer is kept."""
        layers = _Layers.of(problem, search.start if search.start is not None else search.best, search.effort)
        search.offer(layers.table())
        if problem.num_gpus == 1:
            search.exhausted()
            return
        trials = min(TRIALS_PER_SLOT * problem.num_slots, max(1, ROUND_STEPS // problem.num_gpus))
        if search.work is not None:
            trials = max(1, min(trials, search.work // problem.num_layers))
        spent, number, idle = 0, 0, 0
        limited = search.work is not None or search.remaining_s is not None
        while search.progress(spent) < 1.0 and not search.proven:
            number += 1

            def layer(row: int, number: int = number) -> Callable[[], bool]:
                state = seeded(search.seed, number, row)
                return lambda: not search.done and layers.improve(row, self, trials, state, number)

            better = any(run_together(search, [layer(row) for row in range(problem.num_layers)]))
            spent += trials * problem.num_layers
            if better:
                search.offer(layers.table(), number)
            idle = 0 if better else idle + 1
            if not limited and idle >= MORE_ROUNDS:
                return


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layers:
    """The best arrangement of every layer so far, and its cost."""

    problem: Problem
    slots: Ints
    cost: npt.NDArray[np.float64]
    homes: npt.NDArray[np.float64]
    traffic: npt.NDArray[np.float64]
    prices: npt.NDArray[np.float64]

    @classmethod
    def of(cls, problem: Problem, start: npt.NDArray[np.integer[Any]] | None, effort: Effort) -> _Layers:
        """Start from a plan, or from an even one."""
        spare = problem.spare_replicas // problem.num_layers
        table = start
        if table is None:
            table = balanced(problem, spare) if problem.sizes.survival is None else alive_by_load(problem, effort)
        if _twice(problem, table):
            table = separate_replicas(table.astype(np.int64), problem.profile.load, problem.num_gpus)
        table = kept_alive(problem, table, effort)
        slots = _by_gpu(problem, table).astype(np.int64)
        for gpu, room in enumerate(problem.capacity.tolist()):
            slots[:, gpu] = np.sort(slots[:, gpu], axis=1)[:, ::-1]
            slots[:, gpu, room:] = -2
        L, load = problem.num_layers, problem.profile.load
        homes = home_share(problem)
        if homes is None:
            homes = np.full((L, problem.num_experts, problem.num_gpus), 1 / problem.num_gpus)
        objective = problem.objective
        caps = np.full(L, np.inf) if problem.load_caps is None else problem.load_caps
        prices = np.zeros((L, 4))
        prices[:, 0] = objective.imbalance_weight / L
        prices[:, 1] = np.where(np.isfinite(caps), objective.load_excess_weight / L, 0.0)
        prices[:, 2] = np.where(np.isfinite(caps), caps, 1e300)
        prices[:, 3] = NUDGE * (prices[:, 0] + prices[:, 1])
        traffic = objective.traffic_weight * load.sum(axis=1) / load.sum()
        layers = cls(problem=problem, slots=slots, cost=np.zeros(L), homes=homes, traffic=traffic, prices=prices)
        plain = prices.copy()
        plain[:, 3] = 0.0
        for row in range(L):
            layers.cost[row] = layer_cost(layers.slots[row], layers._priced(row, plain))[0]
        return layers

    def improve(self, row: int, method: LoadSearch, trials: int, state: State, number: int) -> bool:
        """Anneal a layer from its best arrangement; whether that is better now."""
        slots = self.slots[row].copy()
        price = max(float(self.prices[row, 0] + self.prices[row, 1]), float(self.traffic[row]), 1e-300)
        warm = method.hot / (1 + (number - 1) % 4)  # rounds from hot and from cooler
        fill = bool(self.problem.full_slots)
        heat = (warm * price, min(method.cold, warm) * price)
        problem = self.problem
        alive = alive_of(slots.ravel(), problem.sizes.survival, problem.num_experts, problem.slots_per_gpu)
        cost = float(anneal_layer(slots, self._priced(row, self.prices), alive, fill, *heat, trials, state))
        if cost >= self.cost[row] - GAIN * abs(self.cost[row]):
            return False
        self.slots[row], self.cost[row] = slots, cost
        return True

    def table(self) -> Table:
        """Return the plan, (L, S)."""
        return np.maximum(self.slots, -1).reshape(self.problem.num_layers, -1).astype(np.int32)

    def _priced(self, row: int, prices: npt.NDArray[np.float64]) -> Layer:
        problem, topology = self.problem, self.problem.topology
        return Layer(
            load=np.ascontiguousarray(problem.relative_load[row]),
            policy=POLICIES.index(problem.objective.replica_policy),
            homes=np.ascontiguousarray(self.homes[row]),
            node=topology.node_of_gpu.astype(np.int64),
            hop=np.ascontiguousarray(topology.hop_cost, dtype=np.float64),
            fair=np.ascontiguousarray(topology.fair_share, dtype=np.float64),
            traffic=float(self.traffic[row]),
            prices=prices[row],
        )


def _by_gpu(problem: Problem, table: npt.NDArray[np.integer[Any]]) -> Ints:
    return np.asarray(table, dtype=np.int64).reshape(problem.num_layers, problem.num_gpus, problem.slots_per_gpu).copy()


def _twice(problem: Problem, table: npt.NDArray[np.integer[Any]]) -> bool:
    """Whether a GPU holds an expert twice."""
    ordered = np.sort(_by_gpu(problem, table), axis=2)
    return bool(((ordered[:, :, 1:] == ordered[:, :, :-1]) & (ordered[:, :, 1:] >= 0)).any())
