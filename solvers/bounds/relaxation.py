"""The semidefinite relaxation of "which experts share a block": an upper bound on the weight that stays together.

Notation: w layers of S places each, in G blocks of C = S / G places per layer; n = w S. A plan is a co-location matrix
Y (n, n), ``Y[i, j] = 1`` where i and j are in the same block. It has ones on the diagonal, entries in 0..1, and C ones
per row and layer; ``Y - 1/G`` is positive semidefinite with eigenvalues up to w C, trace ``w (S - C)``, and its rows
sum to 0 within each layer; and being together is transitive (triangle inequalities).

Any symmetric matrix Z and multipliers m, v >= 0 give a *safe* bound, converged or not, by splitting the weight W:

    <W, Y> <= <W - Z, 1>/G + w C * (sum of the G-1 largest eigenvalues of W - Z, centred per layer)
              + (best C entries per row and layer of Z - triangles(m) - loads(v)) + 2 sum(m) + cap * sum(v)

Z = W is the row bound, Z = 0 the spectral bound; the alternating direction method below looks for the best Z.

References
----------
Boyd et al., Foundations and Trends in Machine Learning 3 (2011) for the method; Jansson, Chaykin and Keil, SIAM J.
Numer. Anal. 46 (2007) for safe bounds from approximate duals; ``docs/bounds.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.bounds.eigen import largest_eigenvalues, top_eigenpairs
from solvers.bounds.kernels.clipped_trace import shift_for_trace
from solvers.bounds.kernels.triangles import add_triangles, find_triangles, project, update_dual

__all__ = ["LoadRows", "Relaxation"]

Array = npt.NDArray[np.float64]
# Of the method, in units of a normalised weight's typical entry; affects speed, never safety; chosen by trial.
STEP = 2.0
# Over-relaxation of the splitting method, inside the 1.5 to 1.8 that is recommended for it (Boyd et al., 2011, 3.4.3).
RELAX = 1.6
# Of the sum of a bound's terms: double precision, 1.1e-16, times the operations behind each term, with room.
ROUNDING = 1e-14
SMALLEST = 1e-300  # in place of 0 in a division
# Steps before triangles are looked for, and between two looks, each as dear as some steps. Chosen by trial.
FIRST_TRIANGLES, EVERY_TRIANGLES = 40, 20
# Of a triangle that comes in; entries are 0 to 1. Smaller ones hardly raise the bound. Chosen by trial.
LEAST_VIOLATION = 0.02
# Triangles that come in at a look, per row of the matrix, so that none dominates. Chosen by trial.
MAX_NEW_PER_PLACE = 10
MAX_FOUND = 200_000  # triangles that a look collects before it picks; chosen by trial


@dataclass(frozen=True, kw_only=True)
class LoadRows:
    """Loads of the places that share a block with a given one: they add up to at most `cap` in each layer, or cost.

    Attributes
    ----------
    load : (w, S) float64
        Relative to a block's fair share.
    cap : (w,) float64
    price : (w,) float64
        What exceeding it costs per layer, block and unit of load, in units of the weight: a block's multipliers may not
        add up to more.
    top_price : (w,) float64
        What the largest load costs beyond `cap`, per layer, in units of the weight: either all multipliers of a layer
        add up to no more, or those of each block to no more than `price`.
    counted : (w,) float64
        Excess of each layer whose price is part of another bound already: multipliers give back their part of it.
    """

    load: Array
    cap: Array
    price: Array
    top_price: Array
    counted: Array


class Relaxation:
    """An upper bound of ``<weight, Y>``, improved by `iterate`.

    Parameters
    ----------
    weight : (w S, w S) float64
        Symmetric, zero diagonal.
    layers : int
        Layers, w.
    blocks : int
        Blocks, G, at least 2.
    rows : LoadRows, optional
    """

    def __init__(self, weight: Array, layers: int, blocks: int, rows: LoadRows | None = None) -> None:
        n = len(weight)
        self.layers, self.blocks, self.places = layers, blocks, n // layers
        self.room = self.places // blocks
        self.scale = float(np.abs(weight).sum()) or 1.0
        self.weight = weight / self.scale
        self.step = STEP / (n * self.places)
        self.rows = rows
        self.together = np.full((n, n), 1 / blocks)
        np.fill_diagonal(self.together, 1.0)
        self.dual = np.zeros((n, n))
        self.triangles = np.empty((0, 3), np.int32)
        self.triangle_dual = np.empty(0)
        self.iterations = 0
        self._shift, self._shift_change = 0.0, np.inf
        if rows is not None:
            self._loads = np.zeros((layers, n))
            for layer in range(layers):
                self._loads[layer, layer * self.places : (layer + 1) * self.places] = rows.load[layer]
            # Half of an exact step: with over-relaxation, rows of large blocks would swing.
            self._load_step = 0.5 / np.maximum((rows.load**2).sum(axis=1), 1e-12)
            self.load_dual = np.zeros((n, layers))
        self.best = min(self.bound_of(np.zeros((n, n))), self.bound_of(self.weight))

    def iterate(self, count: int, stop: Callable[[], bool] = lambda: False) -> float:
        """Take `count` steps, or fewer if `stop` says so, and return the best bound so far in the weight's units."""
        self.advance(count, stop)
        return self.take_bound()

    def advance(self, count: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Take `count` steps, or fewer if `stop` says so, without a bound."""
        for _ in range(count):
            self._iterate()
            if stop():
                break

    def take_bound(self) -> float:
        """Return the best bound so far in the weight's units, that of the present multipliers included."""
        self.best = min(self.best, self.bound_of(self.step * self.dual))
        return self.value

    def reweigh(self, weight: Array) -> None:
        """Go on with another weight, near to the present one: the bounds so far are not its own."""
        self.weight = weight / self.scale
        self.best = np.inf

    @property
    def value(self) -> float:
        """The best bound so far, in the units of the weight."""
        return self.best * self.scale

    def _iterate(self) -> None:
        near = self._nearest_partition(self.together - self.dual + self.weight / self.step)
        before = self.together
        free = RELAX * near + (1 - RELAX) * before + self.dual
        if self.rows is not None:
            free -= self._load_part()
        self.together = np.empty_like(before)
        project(free, self.together, self.triangles, self.triangle_dual)
        if self.rows is not None:
            excess = self.together @ self._loads.T - self.rows.cap
            self.load_dual = np.maximum(0.0, self.load_dual + excess * self._load_step)
            # A cap that can't be kept would drive them on, far beyond what the bound can use.
            self.load_dual *= self._affordable(self.load_dual)[0]
        update_dual(self.dual, near, self.together, before, RELAX)
        self.iterations += 1
        if self.iterations >= FIRST_TRIANGLES and self.iterations % EVERY_TRIANGLES == 0:
            self._renew_triangles(near)

    def _nearest_partition(self, target: Array) -> Array:
        """Project onto ``1/G`` plus the matrices with eigenvalues in 0..wC, trace w (S - C) and centred rows."""
        matrix = self._centred(target).astype(np.float32)
        most, total = float(self.layers * self.room), float(self.layers * (self.places - self.room))
        above = self._shift - 3 * self._shift_change - 1e-3 if np.isfinite(self._shift_change) else None
        values, vectors = top_eigenpairs(matrix, above)
        if above is not None and np.clip(values - above, 0, most).sum() < total:
            values, vectors = top_eigenpairs(matrix, None)
        middle = shift_for_trace(values, most, total)
        self._shift, self._shift_change = middle, abs(middle - self._shift)
        size = np.clip(values - middle, 0, most)
        kept = size > 0
        basis = vectors[:, kept] * np.sqrt(size[kept]).astype(np.float32)
        result: Array = (basis @ basis.T).astype(np.float64) + 1 / self.blocks
        return result

    def _centred(self, matrix: Array) -> Array:
        """Subtract the means of rows and columns within each block of layers."""
        w, S = self.layers, self.places
        blocks = matrix.reshape(w, S, w, S)
        blocks = blocks - blocks.mean(axis=3, keepdims=True)
        blocks -= blocks.mean(axis=1, keepdims=True)
        centred: Array = blocks.reshape(w * S, w * S)
        return centred

    def _load_part(self) -> Array:
        """Return what the load rows' multipliers subtract from the matrix."""
        part = self.load_dual @ self._loads
        result: Array = (part + part.T) / 2
        return result

    def _renew_triangles(self, near: Array) -> None:
        """Drop triangles without a multiplier, add the most violated ones."""
        least = LEAST_VIOLATION
        found, violation, count = find_triangles(near, least, MAX_FOUND)
        while count > MAX_FOUND:
            least *= 2
            found, violation, count = find_triangles(near, least, MAX_FOUND)
        most = MAX_NEW_PER_PLACE * len(near)
        if len(found) > most:
            found = found[np.argsort(-violation, kind="stable")[:most]]
        used = self.triangle_dual > 0
        triangles = np.concatenate([self.triangles[used], found])
        dual = np.concatenate([self.triangle_dual[used], np.zeros(len(found))])
        key = (triangles.astype(np.int64) @ np.array([len(near) ** 2, len(near), 1])).ravel()
        first = np.sort(np.unique(key, return_index=True)[1])
        self.triangles, self.triangle_dual = np.ascontiguousarray(triangles[first]), dual[first]

    def bound_of(self, split: Array) -> float:
        """Return the bound that any split Z and the present multipliers give, in units of the whole weight."""
        w, S, G, C = self.layers, self.places, self.blocks, self.room
        rest = self.weight - split
        top = largest_eigenvalues(self._centred(rest), G - 1)
        bound = float(rest.sum()) / G + w * C * float(top.sum())
        own = split.copy()
        if len(self.triangles):
            add_triangles(own, self.triangles, self.triangle_dual, -self.step)
            bound += 2 * self.step * float(self.triangle_dual.sum())
        if self.rows is not None:
            share, largest = self._affordable(self.load_dual)
            dual = self.step * share * self.load_dual
            part = dual @ self._loads
            own -= (part + part.T) / 2
            bound += float(dual.sum(axis=0) @ self.rows.cap + (share * largest) @ self.rows.counted)
        # The diagonal is always there: raised above all others, it is among the C largest.
        lift = 2 * float(np.abs(own).max()) + 1.0
        own[np.diag_indices(w * S)] += lift
        by_row = own.reshape(w * S, w, S)
        bound += float(np.partition(by_row, S - C, axis=2)[:, :, S - C :].sum()) - lift * w * S
        # Rounding: eigenvalues are off by a few units in the last place of the norm, sums by that of the lift.
        norm = float(np.linalg.norm(rest)) * (G - 1) * w * C
        return bound + ROUNDING * w * S * (norm + lift)

    def _affordable(self, load_dual: Array) -> tuple[Array, Array]:
        """Return the share of the load rows' multipliers that an excess pays for, and what a block has of them, (w,).

        A block pays for its excess once for each of its places: at most the C largest multipliers of each layer. All
        blocks together pay for the largest load. What a block has is in units of the whole weight.
        """
        assert self.rows is not None
        w, S, C = self.layers, self.places, self.room
        dual = self.step * load_dual
        largest = np.partition(dual.reshape(w, S, w), S - C, axis=1)[:, S - C :].sum(axis=(0, 1))
        by_block = _affordable_share(self.rows.price / self.scale, largest)
        by_layer = _affordable_share(self.rows.top_price / self.scale, dual.sum(axis=0))
        return np.maximum(by_block, by_layer), largest


def _affordable_share(price: Array, total: Array) -> Array:
    """Return the share of each total that its price allows, 1 at most."""
    share: Array = price / np.maximum(np.maximum(total, price), SMALLEST)
    return share
