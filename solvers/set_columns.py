"""The best choice of one set of experts per GPU: a linear program over few columns at a time, then whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.gpu_sets import GpuSets
from solvers.library_search import TRIALS_PER_UNIT, cp_sat_solver, watch
from solvers.search import Search

__all__ = ["SetColumns"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Row = npt.NDArray[np.integer[Any]]
ENTERING = 100  # columns per GPU and round
CLOSED = 1e-5  # relative distance of the program over some columns from the bound over all
PROVEN = 1e-10  # relative distance of choice and bound that counts as none
SCALE = 1e3  # cost of the choice in linear programs, as HiGHS takes 1e-7 for nothing
UNITS = 1e12  # of a cost in whole numbers
ROUNDINGS = 16  # of a number, at most, in a sum of costs


@dataclass(frozen=True, kw_only=True)
class LargestLoad:
    """The term of a layer's largest load: `weight` per unit of load relative to the fair share, at least `floor`."""

    weight: float
    floor: float


class SetColumns:
    """Choose a set for each GPU so that every expert is in one of them, at the least cost.

    A column is a set on a GPU. The program over all columns,

        min  sum c[B,g] x[B,g] + w z    s.t.  sum of x over sets with e = 1 (each e),  sum_B x[B,g] = 1 (each g),
                                              sum_B load[B,g] x[B,g] <= z (each g),  x >= 0,  z >= floor,

    is solved over some of them; those that its duals u, v, m price below zero come in (column generation). *Any* duals
    with ``m >= 0`` and ``sum m <= w`` give a bound: ``sum u + sum v + (w - sum m) floor + sum_g min_B reduced[B,g]``,
    with ``reduced[B,g] = c[B,g] + m[g] load[B,g] - u(B) - v[g]``. And a choice that contains a column costs at least
    the bound and what the column's reduced cost is above the least of its GPU: once a choice that costs `upper` is
    known, only columns within ``upper - bound`` matter, which are few enough to decide in whole numbers.

    Parameters
    ----------
    sets : GpuSets
    price : float
        Share of the spread's weight that counts, see `GpuSets.cost`.
    largest : LargestLoad
    row : (G, C) integers
        Experts of each GPU in a plan that keeps the constraints.

    Attributes
    ----------
    bound : float
        No choice costs less; -inf before the first round.
    choice : (G,) int64
        Number of each GPU's set in the best choice known.
    upper : float
        What it costs.

    References
    ----------
    Column generation and its bound: Desrosiers and Lübbecke, A Primer in Column Generation, 2005. Set partitioning with
    columns left out by reduced cost: Nemhauser and Wolsey, Integer and Combinatorial Optimization, 1988, II.5.
    """

    def __init__(self, sets: GpuSets, price: float, largest: LargestLoad, row: Row) -> None:
        self.sets, self.largest = sets, largest
        self.gpus = sets.problem.num_gpus
        self.columns = self._near(row)
        self.choice = sets.number(row)
        self.set_price(price)

    def set_price(self, price: float) -> None:
        """Count the spread at another price; columns and the choice are kept, the bound starts anew."""
        self.price, self.cost = price, self.sets.cost(price)
        self._rounding = ROUNDINGS * float(np.finfo(self.cost.dtype).eps)
        self.bound = self._base = -np.inf
        self.upper = self._value(self.choice)
        self.solved = False
        self._duals: tuple[Array, Array, Array] | None = None

    @property
    def row(self) -> npt.NDArray[np.int32]:
        """The choice as a layer's row of the map, (S,)."""
        return self.sets.members(self.choice).astype(np.int32).ravel()

    @property
    def entries(self) -> int:
        """Costs that a round looks at."""
        return self.cost.size

    def round(self) -> float:
        """Solve over the present columns and let better ones in; return the spread of the solution.

        `solved` tells that no column is left that could lower the program by more than `CLOSED`.
        """
        from scipy.optimize import linprog

        numbers, gpus = self._split(self.columns)
        matrix, cost = self._rows(numbers, gpus), self._costs(numbers, gpus)
        E, G = self.sets.problem.num_experts, self.gpus
        equal, loads = matrix[: E + G], matrix[E + G :]
        bounds = np.zeros((matrix.shape[1], 2))
        bounds[:, 1] = np.inf
        limits: dict[str, Any] = {}
        if self.largest.weight:
            bounds[-1, 0] = self.largest.floor
            limits = {"A_ub": loads, "b_ub": np.zeros(G)}
        scale = SCALE / max(abs(self.upper), 1e-300)
        found = linprog(cost * scale, A_eq=equal, b_eq=np.ones(E + G), bounds=bounds, method="highs-ds", **limits)
        if found.status != 0:  # out of memory, or numbers that HiGHS can't manage: what was found so far is safe
            self.solved = True
            return 0.0
        value, dual = found.fun / scale, found.eqlin.marginals / scale
        price = np.clip(-found.ineqlin.marginals / scale, 0, None) if limits else np.zeros(G)
        price *= min(1.0, self.largest.weight / max(float(price.sum()), 1e-300))
        duals = dual[:E], dual[E:], price
        entering, least = [], np.zeros(G)
        held = self.sets.sums(duals[0])
        for gpu in range(G):
            reduced = self._reduced(held, duals, gpu)
            least[gpu] = reduced.min()
            best = np.argpartition(reduced, min(ENTERING, len(reduced) - 1))[:ENTERING]
            entering.append(best[reduced[best] < 0] * G + gpu)
        slack = self._rounding * (np.abs(dual).sum() + abs(value))
        bound = float(dual.sum() + (self.largest.weight - price.sum()) * self.largest.floor + least.sum() - slack)
        if bound > self.bound:
            self.bound = self._base = bound
            self._duals, self._least = duals, least
        before = len(self.columns)
        self.columns = np.union1d(self.columns, np.concatenate(entering))
        self.solved = value - self.bound <= CLOSED * abs(value) or len(self.columns) == before
        x = found.x[: len(numbers)]
        return float(x @ self.sets.spread(numbers, gpus))

    @property
    def closed(self) -> bool:
        """Whether the choice is known to be the best."""
        return self.upper - self.bound <= max(PROVEN, 2 * self._rounding) * abs(self.upper)

    def decide(self, most: int, search: Search) -> None:
        """Decide in whole numbers over the columns that a better choice may use: raise the bound, lower the choice.

        Parameters
        ----------
        most : int
            Columns to look at; where more may be used, those of least reduced cost.
        search : Search
            Its time and work limit CP-SAT.
        """
        if self._duals is None:
            return
        columns, within = self._within(most)
        lower = self._whole(columns, search)
        # A choice with a column that was left out costs at least `within`.
        self.bound = max(self.bound, min(lower, self.upper, within))

    def _within(self, most: int) -> tuple[Ints, float]:
        """Return the columns that a better choice may use, at most so many, and what one with any other costs."""
        assert self._duals is not None
        G, room = self.gpus, self.upper - self._base
        held = self.sets.sums(self._duals[0])
        kept, above = [], []
        for gpu in range(G):
            excess = self._reduced(held, self._duals, gpu) - self._least[gpu]
            near = np.flatnonzero(excess <= room)
            kept.append(near * G + gpu)
            above.append(excess[near])
        columns, excess = np.concatenate(kept), np.concatenate(above)
        if len(columns) > most:
            order = np.argpartition(excess, most)
            room = float(excess[order[most]])
            columns = columns[order[:most]]
        return np.union1d(columns, self.choice * G + np.arange(G)), self._base + room

    def _whole(self, columns: Ints, search: Search) -> float:
        """Solve over some columns in whole numbers; return the bound over them."""
        from ortools.sat.python import cp_model

        numbers, gpus = self._split(columns)
        E, G, scale = self.sets.problem.num_experts, self.gpus, UNITS / max(abs(self.upper), 1e-300)
        model = cp_model.CpModel()
        held = [model.new_bool_var("") for _ in numbers]
        at, row = self._places(numbers, gpus)
        order = np.argsort(row, kind="stable")
        for places in np.split(at[order], np.searchsorted(row[order], np.arange(1, E + G))):
            model.add_exactly_one([held[place] for place in places])
        # Rounded down, so that CP-SAT's bound is below the true one.
        weights = np.floor(self.cost[numbers, gpus].astype(np.float64) * scale).astype(np.int64)
        total = cp_model.LinearExpr.weighted_sum(held, weights.tolist())
        if self.largest.weight:
            price = self.largest.weight * scale
            largest = model.new_int_var(int(self.largest.floor * price), int(price / self.sets.least_fair) + 1, "")
            loads = np.floor(self.sets.relative_load(numbers, gpus) * price).astype(np.int64)
            for gpu in range(G):
                mine = np.flatnonzero(gpus == gpu)
                expression = cp_model.LinearExpr.weighted_sum([held[place] for place in mine], loads[mine].tolist())
                model.add(expression <= largest)
            total += largest
        model.minimize(total)
        solver = cp_sat_solver(search.seed, None if search.work is None else search.work / TRIALS_PER_UNIT)
        solver.parameters.cp_model_presolve = False  # it finds little here, and takes longer than the rest
        status = watch(search, solver, lambda: solver.solve(model))
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            chosen = np.array([place for place, one in enumerate(held) if solver.boolean_value(one)])
            choice = np.zeros(G, np.int64)
            choice[gpus[chosen]] = numbers[chosen]
            self._take(choice)
        elif status != cp_model.UNKNOWN:
            raise RuntimeError(f"CP-SAT finds a choice of sets {solver.status_name(status)} although there is one")
        lower = (float(solver.best_objective_bound) - G - 1) / scale
        return lower - self._rounding * abs(lower)

    def _take(self, choice: Ints) -> None:
        value = self._value(choice)
        if value < self.upper:
            self.choice, self.upper = choice, value

    def _value(self, choice: Ints) -> float:
        gpus = np.arange(self.gpus)
        value = float(self.cost[choice, gpus].astype(np.float64).sum())
        if self.largest.weight:
            value += self.largest.weight * max(self.largest.floor, float(self.sets.relative_load(choice, gpus).max()))
        return value

    def _near(self, row: Row) -> Ints:
        """Return columns of a row (G, C): each set on each GPU, and with one expert exchanged on its own."""
        G, E = self.gpus, self.sets.problem.num_experts
        everywhere = (self.sets.number(row)[:, None] * G + np.arange(G)).ravel()
        result = [everywhere]
        for gpu, members in enumerate(row):
            others = np.setdiff1d(np.arange(E), members)
            swapped = np.repeat(members[None], len(members) * len(others), axis=0)
            swapped[np.arange(len(swapped)), np.repeat(np.arange(len(members)), len(others))] = np.tile(
                others, len(members)
            )
            if len(swapped):
                result.append(self.sets.number(swapped) * G + gpu)
        return np.unique(np.concatenate(result))

    def _split(self, columns: Ints) -> tuple[Ints, Ints]:
        """Return the sets and GPUs of columns, without those that a constraint forbids."""
        numbers, gpus = columns // self.gpus, columns % self.gpus
        fine = np.isfinite(self.cost[numbers, gpus])
        return numbers[fine], gpus[fine]

    def _costs(self, numbers: Ints, gpus: Ints) -> Array:
        cost = self.cost[numbers, gpus].astype(np.float64)
        return np.append(cost, self.largest.weight) if self.largest.weight else cost

    def _rows(self, numbers: Ints, gpus: Ints) -> Any:
        """Return the rows of the program: experts, GPUs, and the loads where the largest counts."""
        from scipy.sparse import csr_matrix

        E, G, width = self.sets.problem.num_experts, self.gpus, len(numbers)
        at, row = self._places(numbers, gpus)
        value = np.ones(len(at))
        if self.largest.weight:
            at = np.concatenate([at, np.arange(width), np.full(G, width)])
            row = np.concatenate([row, E + G + gpus, E + G + np.arange(G)])
            value = np.concatenate([value, self.sets.relative_load(numbers, gpus), -np.ones(G)])
            width += 1
        return csr_matrix((value, (row, at)), shape=(E + G * (2 if self.largest.weight else 1), width))

    def _places(self, numbers: Ints, gpus: Ints) -> tuple[Ints, Ints]:
        """Return column and row of each one in the program: a column has its experts, and its GPU (row E + g)."""
        column, size = np.arange(len(numbers)), self.sets.size
        row = np.concatenate([self.sets.members(numbers).ravel(), self.sets.problem.num_experts + gpus])
        return np.concatenate([np.repeat(column, size), column]), row

    def _reduced(self, held: Array, duals: tuple[Array, Array, Array], gpu: int) -> Array:
        """Return the reduced costs of all sets on a GPU, (n,)."""
        reduced: Array = self.cost[:, gpu] - held - duals[1][gpu]
        if duals[2][gpu]:
            every = np.arange(self.sets.count)
            reduced += duals[2][gpu] * self.sets.relative_load(every, np.full(self.sets.count, gpu))
        return reduced
