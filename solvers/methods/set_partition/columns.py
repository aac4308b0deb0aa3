"""The best choice of one set of experts per GPU: a linear program over few columns at a time, then whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.methods.set_partition.gpu_sets import GpuSets
from solvers.methods.set_partition.pieces import Piece, columns_near
from solvers.methods.set_partition.programs import Columns, solve_shares, solve_whole
from solvers.searching.search import Search

__all__ = ["SetColumns"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Row = npt.NDArray[np.integer[Any]]
ROUNDS = 200  # of column generation; most layers need 5 to 20
ENTERING = 100  # columns per GPU and round; fewer need more rounds, more a larger program. Chosen by trial
# Relative distance of the program over some columns from the bound over all; whole numbers close the rest faster.
# Chosen by trial.
CLOSED = 1e-5
PROVEN = 1e-10  # relative distance of choice and bound that counts as none; below the 1e-9 to which scores are compared
NARROW = 1e-3  # weight of the width of a piece, relative to the choice, from which on it is not halved; chosen by trial
# Of a number, at most, in a sum of costs; a sum over at most so many numbers of a like size, or pairwise over more.
ROUNDINGS = 16


class SetColumns:
    """Choose a set for each GPU so that every expert is in one of them, at the least cost.

    A column is a set on a GPU. The program over all columns with a load of at most z,

        min  sum c[B,g] x[B,g]    s.t.  sum of x over sets with e = 1 (each e),  sum_B x[B,g] = 1 (each g),  x >= 0,

    is solved over some of them; those that its duals u, v price below zero come in (column generation). *Any* duals
    give a bound: ``sum u + sum v + sum_g min_B reduced[B,g]`` with ``reduced[B,g] = c[B,g] - u(B) - v[g]``. And a
    choice that contains a column costs at least the bound and what the column's reduced cost is above the least of its
    GPU: once a choice that costs `upper` is known, only columns within ``upper - bound`` matter, which are few enough
    to decide in whole numbers.

    Where the largest load has a weight w, its range is cut into pieces. A choice whose largest load is between a and b
    costs at least w a, and what the program over columns with loads up to b says. The piece of least bound is halved,
    again and again (branch and bound).

    Parameters
    ----------
    sets : GpuSets
    price : float
        Share of the spread's weight that counts, see `GpuSets.cost`.
    row : (G, C) integers
        Experts of each GPU in a plan that keeps the constraints.
    weight : float
        Of the largest load, relative to the fair share.
    floor : float
        What the largest load is at least.

    Attributes
    ----------
    choice : (G,) int64
        Number of each GPU's set in the best choice known.
    upper : float
        What it costs.
    spread : float
        Of the last linear program's solution.

    References
    ----------
    Column generation and its bound: Desrosiers and Lübbecke, A Primer in Column Generation, 2005. Set partitioning with
    columns left out by reduced cost: Nemhauser and Wolsey, Integer and Combinatorial Optimization, 1988, II.5.
    """

    def __init__(self, sets: GpuSets, price: float, row: Row, *, weight: float = 0.0, floor: float = 1.0) -> None:
        self.sets, self.weight, self.floor = sets, weight, floor
        self.gpus = sets.problem.num_gpus
        self.columns = columns_near(sets, row)
        self.choice = sets.number(row)
        self.spread = 0.0
        self.set_price(price)

    def set_price(self, price: float) -> None:
        """Count the spread at another price; columns and the choice are kept, the bound starts anew."""
        self.price, self.cost = price, self.sets.cost(price)
        self._rounding = ROUNDINGS * float(np.finfo(self.cost.dtype).eps)
        self.upper = self._value(self.choice)
        self.pieces = [Piece(low=self.floor, high=np.inf, bound=self.weight * self.floor)]

    @property
    def bound(self) -> float:
        """No choice costs less."""
        known = self.upper - self._rounding * abs(self.upper)
        return min(known, *(piece.bound for piece in self.pieces))

    @property
    def row(self) -> npt.NDArray[np.int32]:
        """The choice as a layer's row of the map, (S,)."""
        return self.sets.members(self.choice).astype(np.int32).ravel()

    @property
    def closed(self) -> bool:
        """Whether the choice is known to be the best."""
        return self.upper - self.bound <= max(PROVEN, 2 * self._rounding) * abs(self.upper)

    def bound_by_programs(self, search: Search, told: Callable[[], None], spent: int = 0) -> int:
        """Solve linear programs until they have nothing more to tell.

        Parameters
        ----------
        search : Search
            Its time and work are the limits.
        told : callable
            Called whenever the bound may have risen.
        spent : int
            Work so far: sets times GPUs that were looked at, and CP-SAT's time.

        Returns
        -------
        int
            Work spent in all.
        """
        for _ in range(ROUNDS):
            if self.closed or search.progress(spent + self.cost.size) >= 1.0 or not self._round():
                break
            spent += self.cost.size
            told()
        return spent

    def decide(self, most: int, search: Search, told: Callable[[], None]) -> None:
        """Decide in whole numbers, after linear programs; the bound rises, the choice gets better.

        Parameters
        ----------
        most : int
            Columns to look at; where more may be used, those of least reduced cost.
        search, told
            As for `bound_by_programs`.
        """
        spent = 0
        while not self.closed and search.progress(spent) < 1.0:
            spent = self.bound_by_programs(search, told, spent)
            taken = self._decide(most, search, spent)
            if not taken:
                break
            spent += taken
            told()

    def _round(self) -> bool:
        """Solve a linear program over the present columns and let better ones in, for the piece of least bound.

        Returns
        -------
        bool
            False if there was nothing to solve.
        """
        piece = self._next()
        if piece is None:
            return False
        if piece.solved:
            piece = self._halve(piece)
        columns = self._below(piece.high)
        found = solve_shares(columns, self.upper - self.weight * piece.low, self.upper)
        if found is None:  # what is known stays
            piece.solved = True
            return True
        before = len(self.columns)
        self._price(piece, found.duals)
        piece.solved = found.value - piece.base <= CLOSED * abs(found.value) or len(self.columns) == before
        every = np.arange(self.gpus)
        spread = found.shares @ self.sets.spread(columns.numbers, columns.gpus)
        self.spread = float(spread + found.known * self.sets.spread(self.choice, every).sum())
        return True

    def _decide(self, most: int, search: Search, spent: int) -> int:
        """Decide the piece of least bound; return the work that it took, 0 if there was nothing to decide."""
        piece = min(self.pieces, key=lambda piece: piece.bound)
        if self.closed or piece.duals is None or piece.decided >= most:
            return 0
        columns, within = self._within(piece, most)
        left = None if search.work is None else max(search.work - spent, 1)
        found = solve_whole(columns, self.upper, search, left)
        lower, top = found.bound * (1 - self._rounding), 0.0  # costs are never negative
        if found.choice is not None:
            top = float(self.sets.relative_load(found.choice, np.arange(self.gpus)).max())
            if (value := self._value(found.choice)) < self.upper:
                self.choice, self.upper = found.choice, value
        lower = min(lower, within)  # what a choice with a column that was left out costs at least
        if self.weight and piece.low < top <= piece.high:
            # Larger loads than those of the solution cost more; smaller ones are another program.
            rest = replace(piece, low=top, bound=max(piece.bound, lower + self.weight * top), decided=most)
            self.pieces.append(rest)
            piece.high, piece.solved = float(np.nextafter(top, -np.inf)), False
        else:
            piece.decided = most
        piece.bound = max(piece.bound, lower + self.weight * piece.low)
        return len(columns.numbers) + found.work

    def _next(self) -> Piece | None:
        """Return the piece that a linear program may raise the bound of; None where only whole numbers can."""
        piece = min(self.pieces, key=lambda piece: piece.bound)
        if piece.solved and piece.duals is None:
            return None
        narrow = self.weight * (self._top(piece) - piece.low) <= NARROW * abs(self.upper)
        return None if piece.solved and (narrow or piece.decided) else piece

    def _top(self, piece: Piece) -> float:
        """Return the largest load that a better choice of the piece may have."""
        if not self.weight:
            return piece.low
        return min(piece.high, (self.upper - piece.base) / self.weight)

    def _halve(self, piece: Piece) -> Piece:
        """Cut a piece in two; return the one with the smaller loads, whose program is another one."""
        middle = (piece.low + self._top(piece)) / 2
        smaller = replace(piece, high=middle, solved=False)
        piece.low = middle
        piece.bound = max(piece.bound, piece.base + self.weight * middle)
        self.pieces.append(smaller)
        return smaller

    def _price(self, piece: Piece, dual: Array) -> None:
        """Take the bound that duals (E + G,) give, and the columns that they price lowest."""
        E, G = self.sets.problem.num_experts, self.gpus
        duals = dual[:E], dual[E:]
        entering, least = [], np.zeros(G)
        held = self.sets.sums(duals[0])
        for gpu in range(G):
            reduced = self._reduced(held, duals, gpu, piece.high)
            least[gpu] = reduced.min()
            best = np.argpartition(reduced, min(ENTERING, len(reduced) - 1))[:ENTERING]
            entering.append(best[reduced[best] < 0] * G + gpu)
        slack = self._rounding * (np.abs(dual).sum() + abs(self.upper))
        base = float(dual.sum() + least.sum() - slack)
        if base > piece.base:
            piece.base, piece.duals, piece.least = base, duals, least
            piece.bound = max(piece.bound, base + self.weight * piece.low)
        self.columns = np.union1d(self.columns, np.concatenate(entering))

    def _within(self, piece: Piece, most: int) -> tuple[Columns, float]:
        """Return the columns that a better choice may use, at most so many, and what one with any other costs.

        Without the largest load, which costs the piece's least.
        """
        assert piece.duals is not None
        assert piece.least is not None
        G, room = self.gpus, self.upper - self.weight * piece.low - piece.base
        held = self.sets.sums(piece.duals[0])
        kept, above = [], []
        for gpu in range(G):
            excess = self._reduced(held, piece.duals, gpu, piece.high) - piece.least[gpu]
            near = np.flatnonzero(excess <= room)
            kept.append(near * G + gpu)
            above.append(excess[near])
        columns, excess = np.concatenate(kept), np.concatenate(above)
        if len(columns) > most:
            order = np.argpartition(excess, most)
            room = float(excess[order[most]])
            columns = columns[order[:most]]
        return self._columns(np.sort(columns)), piece.base + room

    def _value(self, choice: Ints) -> float:
        gpus = np.arange(self.gpus)
        value = float(self.cost[choice, gpus].astype(np.float64).sum())
        if self.weight:
            value += self.weight * max(self.floor, float(self.sets.relative_load(choice, gpus).max()))
        return value

    def _below(self, high: float) -> Columns:
        """Return the present columns, without those that a constraint or their load rules out."""
        columns = self._columns(self.columns)
        load = self.sets.relative_load(columns.numbers, columns.gpus)
        return self._columns(self.columns[np.isfinite(columns.cost) & (load <= high)])

    def _columns(self, columns: Ints) -> Columns:
        """Return columns, each given as set times G plus GPU, with their costs."""
        numbers, gpus = columns // self.gpus, columns % self.gpus
        return Columns(sets=self.sets, numbers=numbers, gpus=gpus, cost=self.cost[numbers, gpus])

    def _reduced(self, held: Array, duals: tuple[Array, Array], gpu: int, high: float) -> Array:
        """Return the reduced costs of all sets on a GPU, (n,); infinite for those with a higher load."""
        reduced: Array = self.cost[:, gpu] - held - duals[1][gpu]
        if np.isfinite(high):
            reduced[self.sets.loads(gpu) > high] = np.inf
        return reduced
