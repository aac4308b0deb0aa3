"""Programs over some columns, a column being a set of experts on a GPU: in shares by HiGHS, whole by CP-SAT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.methods.set_partition.gpu_sets import GpuSets
from solvers.searching.cp_sat import run_cp_sat
from solvers.searching.search import Search

__all__ = ["Columns", "Shares", "Whole", "solve_shares", "solve_whole"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SCALE = 1e3  # cost of the choice in linear programs: HiGHS takes 1e-7 for nothing
SMALLEST = 1e-9  # cost of a choice that numbers are scaled by; costs are fractions of the objective, near 1
UNITS = 1e12  # of a cost in whole numbers; sums of G of them stay far below 2^63


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """Some columns of a layer.

    Attributes
    ----------
    sets : GpuSets
    numbers : (k,) int64
        Number of each column's set.
    gpus : (k,) int64
    cost : (k,) floating
    """

    sets: GpuSets
    numbers: Ints
    gpus: Ints
    cost: npt.NDArray[np.floating[Any]]

    @property
    def num_rows(self) -> int:
        """Rows of the programs: experts, then GPUs."""
        return self.sets.problem.num_experts + self.sets.problem.num_gpus

    def places(self) -> tuple[Ints, Ints]:
        """Return column and row of each one in the program: a column has its experts, and its GPU (row E + g)."""
        column, size = np.arange(len(self.numbers)), self.sets.size
        row = np.concatenate([self.sets.members(self.numbers).ravel(), self.sets.problem.num_experts + self.gpus])
        return np.concatenate([np.repeat(column, size), column]), row


@dataclass(frozen=True, kw_only=True, eq=False)
class Shares:
    """Optimum of the linear program.

    Attributes
    ----------
    value : float
    duals : (E + G,) float64
        Prices of experts and GPUs.
    shares : (k,) float64
        Of each column.
    known : float
        Share of the choice as a whole.
    """

    value: float
    duals: Array
    shares: Array
    known: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Whole:
    """What whole numbers gave.

    Attributes
    ----------
    bound : float
        No choice among the columns costs less; infinite if there is none.
    choice : (G,) int64 or None
        Number of each GPU's set, if a choice was found.
    work : int
        Trial changes that it counts for.
    """

    bound: float
    choice: Ints | None
    work: int


def solve_shares(columns: Columns, known: float, scale: float) -> Shares | None:
    """Solve the linear program: every expert, and every GPU, in columns whose shares add up to 1.

    Parameters
    ----------
    columns : Columns
    known : float
        Cost of a choice as a whole, which stands in all rows, so that there is a solution.
    scale : float
        Positive; a cost near those of choices, by which numbers are scaled.

    Returns
    -------
    Shares or None
        None where HiGHS can't manage the numbers.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix

    factor = SCALE / max(scale, SMALLEST)
    at, row = columns.places()
    every = np.arange(columns.num_rows)
    row, at = np.append(row, every), np.append(at, np.full(len(every), len(columns.numbers)))
    matrix = csr_matrix((np.ones(len(at)), (row, at)), shape=(len(every), len(columns.numbers) + 1))
    cost = np.append(columns.cost.astype(np.float64), known)
    found = linprog(cost * factor, A_eq=matrix, b_eq=np.ones(len(every)), bounds=(0, None), method="highs-ds")
    if found.status != 0:
        return None
    duals = found.eqlin.marginals / factor
    return Shares(value=found.fun / factor, duals=duals, shares=found.x[:-1], known=float(found.x[-1]))


def solve_whole(columns: Columns, scale: float, search: Search, work: int | None) -> Whole:
    """Choose among columns in whole numbers: every expert, and every GPU, in one of them.

    Parameters
    ----------
    columns : Columns
    scale : float
        As for `solve_shares`.
    search : Search
        Its time is the limit.
    work : int or None
        Trial changes that it may take.
    """
    from ortools.sat.python import cp_model

    factor, G = UNITS / max(scale, SMALLEST), columns.sets.problem.num_gpus
    at, row = columns.places()
    if len(np.unique(row)) < columns.num_rows:
        return Whole(bound=np.inf, choice=None, work=0)  # some expert, or GPU, is in none of them
    model = cp_model.CpModel()
    held = [model.new_bool_var("") for _ in columns.numbers]
    order = np.argsort(row, kind="stable")
    for places in np.split(at[order], np.searchsorted(row[order], np.arange(1, columns.num_rows))):
        model.add_exactly_one([held[place] for place in places])
    # Rounded down, so that CP-SAT's bound is below the true one.
    weights = np.floor(columns.cost.astype(np.float64) * factor).astype(np.int64)
    model.minimize(cp_model.LinearExpr.weighted_sum(held, weights.tolist()))
    settings = {
        "linearization_level": 2,  # set partitioning is all but integral: linear programs prove most of it
        "cp_model_presolve": False,  # it finds little here, and takes longer than the rest
    }
    found, choice = run_cp_sat(model, search, work=work, settings=settings), None
    if found.status == "infeasible":
        return Whole(bound=np.inf, choice=None, work=found.work)
    if found.found:
        chosen = np.array([place for place, one in enumerate(held) if found.holds(one)])
        choice = np.zeros(G, np.int64)
        choice[columns.gpus[chosen]] = columns.numbers[chosen]
    return Whole(bound=(found.bound - G - 1) / factor, choice=choice, work=found.work)
