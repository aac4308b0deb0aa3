"""How little the loads of a layer's GPUs vary: a lower bound from which experts may share a GPU, replicas included.

Notation: r are the experts' shares of the load, c = V / (r r') the covariance of their relative loads, q = sqrt(r). GPU
g has the loads ``y[g] = G r x[g]``, for shares x of each expert's tokens that add up to 1 over the GPUs. Then

    X[i,j] = mean over g of y[g,i] y[g,j] / (q[i] q[j])

is nonnegative and positive semidefinite, and the mean variance is ``<K, X>`` with ``K[i,j] = V[i,j] / (q[i] q[j])``. If
all GPUs have their fair share, ``X q = q`` and eigenvalues are 1 at most. An expert with n replicas has ``X[i,i] >= G
r[i] / n``, and all of them have so many slots. Any N >= 0 off the diagonal and any t >= 0 give a safe bound, with ``R =
K - N - diag(t)`` and P for what is orthogonal to q:

    <K, X> >= q'Rq + sum of the negative eigenvalues of PRP + the least sum of t[i] G r[i] / n[i]

References
----------
``docs/bounds.md``, Spread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.bounds.eigen import largest_eigenvalues, top_eigenpairs

__all__ = ["LeastVariance", "LoadVariance", "least_own"]

Array = npt.NDArray[np.float64]
STEP = 2.0  # of the mean diagonal entry of K; speed only; chosen by trial: from 1 to 4 hardly differs
RELAX = 1.6  # as in `solvers.bounds.relaxation`
LEAST_SHARE = 0.03  # of the last answer of the replicas in the mean of all; chosen by trial: 0.3 proves 3 % less
HALVINGS = 60  # of an interval of numbers of double precision
ROUNDING = 1e-14  # double precision with room, times the operations behind a term


@dataclass(frozen=True, kw_only=True)
class LeastVariance:
    """The mean of the GPUs' variances is at least ``even - per_imbalance * m``, where none is above ``1 + m``."""

    even: float
    per_imbalance: float


class LoadVariance:
    """A lower bound of the mean variance of the loads of a layer's GPUs, improved by `advance`.

    Parameters
    ----------
    deviations : (E, W) float64
        Of the experts' shares of the load: V is the product with its transpose.
    shares : (E,) float64
        Of the load; they add up to 1.
    gpus, slots : int
        GPUs, all with the same fair share, and their slots in all.
    """

    def __init__(self, deviations: Array, shares: Array, gpus: int, slots: int) -> None:
        used = shares > 0
        self._slots = slots - int((~used).sum())  # the others take one each
        self._root = np.sqrt(shares[used])
        self._alone = gpus * shares[used]  # X[i,i] with one replica
        relative = deviations[used] / self._root[:, None]
        self._cost: Array = relative @ relative.T
        self._step = STEP * float(np.trace(self._cost)) / len(self._cost)
        self._least_diagonal = self._alone / least_own(self._alone * np.diag(self._cost), self._slots)[1]
        self._together = np.outer(self._root, self._root)
        self._dual = np.zeros_like(self._cost)

    @property
    def varies(self) -> bool:
        """Whether any load varies at all."""
        return self._step > 0

    def advance(self, count: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Take `count` steps, or fewer if `stop` says so: alternating directions, as for `Relaxation`."""
        for _ in range(count):
            near = self._nearest_even(self._together - self._dual)
            free = RELAX * near + (1 - RELAX) * self._together + self._dual
            self._together = np.maximum(free - self._cost / self._step, 0.0)
            diagonal = np.diag(free) - np.diag(self._cost) / self._step
            np.fill_diagonal(self._together, np.maximum(diagonal, self._least_diagonal))
            self._dual = free - self._together
            own = np.maximum(np.diag(self._cost) - self._step * np.diag(self._dual), 0.0)
            answer = self._alone / least_own(self._alone * own, self._slots)[1]
            self._least_diagonal += LEAST_SHARE * (answer - self._least_diagonal)
            if stop():
                break

    def _nearest_even(self, target: Array) -> Array:
        """Project onto the matrices with ``X q = q`` and eigenvalues from 0 to 1."""
        values, vectors = top_eigenpairs(self._orthogonal(target).astype(np.float32), 0.0)
        basis = vectors * np.sqrt(np.clip(values, 0.0, 1.0))
        result: Array = (basis @ basis.T).astype(np.float64) + np.outer(self._root, self._root)
        return result

    def _orthogonal(self, matrix: Array) -> Array:
        """Return PMP."""
        q = self._root
        along = matrix @ q
        along = along - (q @ along) / 2 * q
        result: Array = matrix - np.outer(along, q) - np.outer(q, along)
        return result

    def bound(self) -> LeastVariance:
        """Return what the present multipliers prove.

        Loads ``1 + e[g]``, of which none is above ``1 + m``, change three things. Eigenvalues of X are up to ``1 + m``.
        In place of q'Rq there is the mean of ``a'y[g] (1 + e[g])``, with ``a = u / q`` and ``R - PRP = (uq' + qu')/2``:
        as e adds up to 0, is -1 at least and m at most, that is less by no more than m times the range of a, and, if a
        has negative values, m times the largest of these.
        """
        split = self._cost - self._step * self._dual
        own = np.maximum(np.diag(split), 0.0)
        split = np.maximum((split + split.T) / 2, 0.0)
        np.fill_diagonal(split, own)
        q, rest = self._root, self._cost - split
        along = rest @ q
        even = float(q @ along)
        slope = (2 * along - even * q) / q
        # The negative eigenvalues: that of q is 0.
        negative = -float(np.maximum(largest_eigenvalues(-self._orthogonal(rest), len(q)), 0.0).sum())
        negative -= ROUNDING * len(q) ** 2 * float(np.linalg.norm(rest))
        lost = float(slope.max() - slope.min()) + max(0.0, -float(slope.min())) - negative
        return LeastVariance(even=even + negative + least_own(self._alone * own, self._slots)[0], per_imbalance=lost)


def least_own(alone: Array, slots: int) -> tuple[float, Array]:
    """Return the least sum of ``alone[i] / n[i]`` over whole n >= 1 that add up to `slots`, and such n.

    With a price per slot, each n is decided by itself; whatever the price, the sum is not below the least one.

    Parameters
    ----------
    alone : (E,) float64
        At least 0.
    slots : int
        At least E.
    """

    def replicas(price: float) -> Array:
        found: Array = np.maximum(1.0, np.floor((1 + np.sqrt(1 + 4 * alone / price)) / 2))
        return found

    if slots <= len(alone) or not alone.any():
        return float(alone.sum()) if slots <= len(alone) else 0.0, np.ones(len(alone))
    low, high = 0.0, float(alone.max())
    for _ in range(HALVINGS):
        price = (low + high) / 2
        if replicas(price).sum() > slots:
            low = price
        else:
            high = price
    number = replicas(high)
    return float((alone / number).sum() + high * (number.sum() - slots)), number
