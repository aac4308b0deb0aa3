"""The messages of a layer's tokens on one level: at least so many, from pairs of experts that can't be together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement.cost.bounds import Level
from solvers.bounds.kernels.representatives import choose_representatives
from solvers.bounds.relaxation import LoadRows
from solvers.bounds.token_game import Array, Choice, Game

__all__ = ["LayerMessages", "least_remote", "most_more", "most_together"]

MAX_HOMES = 16  # of more homes, each has too few tokens to tell; chosen by trial


class LayerMessages(Game):
    """A lower bound of the blocks other than their home's that a layer's tokens need, improved by `iterate`.

    A block that serves s of a token's experts counts once: ``[s > 0] >= a s - b s (s-1)/2`` with ``a = 2/(m+1)`` and
    ``b = 2/(m (m+1))``, for every whole m (a parabola through 1 at m and m+1). That holds for any part of the token's
    experts: *representatives*, of which few are together. Summed over the blocks but the home's,

        remote blocks >= a * (representatives - those at home) - b * (pairs of them together, but not at home).

    Any choice of representatives and of m, token by token, is safe, and so is the mean of several choices. The most
    that can be at home is an assignment. The most pairs that can be together is what the relaxation bounds; a pair
    that is together is at home for those tokens whose home is that block, at least as many as share any one home.

    Parameters
    ----------
    ids : (n, K) integers
        Experts of the layer's tokens, -1 for none.
    homes : (n,) integers
        Block of each token's home.
    num_experts : int
    level : Level
        Blocks of GPUs.
    spare : int
        Replicas beyond one of each expert, at most.
    rows : LoadRows, optional
        A load cap, with one replica of each expert.
    """

    def __init__(
        self,
        ids: npt.NDArray[np.integer[Any]],
        homes: npt.NDArray[np.integer[Any]],
        num_experts: int,
        level: Level,
        spare: int,
        rows: LoadRows | None = None,
    ) -> None:
        # One type each, for which the loop is compiled once.
        self._ids, self._homes = np.ascontiguousarray(ids, np.int32), np.ascontiguousarray(homes, np.int64)
        self._experts, self._level, self._spare = num_experts, level, spare
        places = self.places_for(level)
        super().__init__(self._choose(np.zeros((places, places))), places, level.blocks, rows)

    @staticmethod
    def places_for(level: Level) -> int:
        """Return the rows of the relaxation's matrix."""
        return level.blocks * level.room

    def _choose(self, together: Array) -> Choice:
        """Return what tokens call, (E, blocks), and the pairs that count where they are together, (E, E)."""
        E, blocks = self._experts, self._level.blocks
        together = together[:E, :E].copy()
        if self._spare and self.choice:
            met = _met_by_further_replicas(self._pairs, self._level.room, self._spare)
            together += met.astype(np.float64) + met.T
        own = self._spare == 0 and blocks <= MAX_HOMES  # with replicas, even home's pairs may be served elsewhere
        called, pairs = np.zeros((E, blocks)), np.zeros((blocks if own else 1, E, E))
        choose_representatives(self._ids, self._homes, together, called, pairs)
        counted: Array = pairs.sum(axis=0)
        if own:
            counted -= pairs.min(axis=0)
        return called, counted

    @property
    def _called(self) -> Array:
        return self.choice[0]

    @property
    def _pairs(self) -> Array:
        return self.choice[1]

    def _weight(self) -> Array:
        """Return the weight of the relaxation: a pair counts once, in two halves."""
        weight = np.zeros((self.places, self.places))
        weight[: self._experts, : self._experts] = self._pairs / 2
        return weight

    def _count(self) -> float:
        """Return the bound of the present choice; of the first, all experts, with the best m for all tokens."""
        called, at_home, kept = float(self._called.sum()), self._most_at_home(), self._most_kept()
        if self.num_choices:
            return called - at_home - kept
        return least_remote(called, at_home, kept, self._ids.shape[1])

    def _most_kept(self) -> float:
        """Return the most pairs that are together away from home."""
        pairs, room, kept = self._pairs, self._level.room, np.inf
        if self._spare or self.relaxation is None:
            kept = most_together(pairs, room, self._experts + self._spare)
        if self.relaxation is not None:
            kept = min(kept, self.relaxation.value + most_more(pairs, room, self._spare))
        return kept

    def _most_at_home(self) -> float:
        """Return the most assignments that can be served in the block of their token's home."""
        from scipy.optimize import linear_sum_assignment

        room, called = self._level.room, self._called
        if self._spare or self.relaxation is None:
            return float(np.sort(called, axis=0)[-min(room, self._experts) :].sum())
        by_slot = np.repeat(called, room, axis=1)
        expert, slot = linear_sum_assignment(by_slot, maximize=True)
        return float(by_slot[expert, slot].sum())


def least_remote(experts: float, at_home: float, together: float, top_k: int) -> float:
    """Return the least blocks other than the home's, from bounds on experts at home and on pairs together."""
    best = 0.0
    for m in range(1, max(2, top_k)):
        best = max(best, 2 / (m + 1) * (experts - at_home) - 2 / (m * (m + 1)) * together)
    return best


def most_together(pairs: Array, slots: int, total_slots: int) -> float:
    """Return an upper bound of the pairs that are served together where experts may have replicas.

    A replica has ``slots - 1`` neighbours: with c replicas, an expert meets at most its best ``c (slots - 1)``
    partners. The spare replicas go where they add most.

    Parameters
    ----------
    pairs : (E, E) float64
        Tokens that use both; zero diagonal.
    slots, total_slots : int
        Of a block, and of all of them.
    """
    met = _met_by_replicas(pairs, slots)
    spare = np.sort(met[:, 1:].ravel())[::-1][: max(0, total_slots - len(pairs))]
    return float(met[:, 0].sum() + spare.sum()) / 2


def most_more(pairs: Array, slots: int, spare: int) -> float:
    """Return an upper bound of what replicas beyond one of each expert add to the pairs that are together.

    The first replica of each expert is what a relaxation bounds. Each further one has ``slots - 1`` neighbours: k of
    them meet at most the expert's best ``k (slots - 1)`` partners.

    Parameters
    ----------
    pairs : (E, E) float64
        Tokens that use both; zero diagonal.
    slots : int
        Of a block.
    spare : int
        Replicas beyond one of each expert.
    """
    return float(np.sort(_met_by_replicas(pairs, slots).ravel())[::-1][:spare].sum())


def _met_by_replicas(pairs: Array, slots: int) -> Array:
    """Return what the first, second, ... replica of each expert meets at most, (E, n), falling in each row."""
    E, per_replica = len(pairs), slots - 1
    if per_replica <= 0:
        return np.zeros((E, 1))
    met: Array = np.add.reduceat(np.sort(pairs, axis=1)[:, ::-1], np.arange(0, E, per_replica), axis=1)
    return met


def _met_by_further_replicas(pairs: Array, slots: int, spare: int) -> npt.NDArray[np.bool_]:
    """Return which partners the replicas that `most_more` counts meet, (E, E), by expert with the replicas."""
    E, per_replica = len(pairs), slots - 1
    met = _met_by_replicas(pairs, slots)
    chosen = np.argsort(-met, axis=None, kind="stable")[:spare] // met.shape[1]
    replicas = np.bincount(chosen, minlength=E)
    rank = np.argsort(np.argsort(-pairs, axis=1, kind="stable"), axis=1, kind="stable")
    return rank < replicas[:, None] * per_replica
