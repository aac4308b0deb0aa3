"""The messages of a layer's tokens on one level: at least so many, from pairs of experts that can't be together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement.cost.bounds import Level
from solvers.bounds.kernels.representatives import MOST_CLASSES, choose_representatives
from solvers.bounds.kernels.spare_replicas import share_out
from solvers.bounds.relaxation import LoadRows
from solvers.bounds.token_game import STEPS_PER_CHOICE, Array, Choice, Game

__all__ = ["LayerMessages", "least_remote", "most_more", "most_together"]

NUM_CLASSES = sum(range(2, MOST_CLASSES + 1))
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
    drawn : (n, K) uint64, optional
        Where only the home's block and this decide which replica a token uses: of an expert with r replicas, none of
        them at home, number ``drawn % r``.
    nearest : bool
        Whether a token uses a replica in its home's block if there is one.
    """

    def __init__(
        self,
        ids: npt.NDArray[np.integer[Any]],
        homes: npt.NDArray[np.integer[Any]],
        num_experts: int,
        level: Level,
        spare: int,
        rows: LoadRows | None = None,
        drawn: npt.NDArray[np.uint64] | None = None,
        nearest: bool = False,
    ) -> None:
        # One type each, for which the loop is compiled once.
        self._ids, self._homes = np.ascontiguousarray(ids, np.int32), np.ascontiguousarray(homes, np.int64)
        self._experts, self._level, self._spare = num_experts, level, spare
        self._drawn = np.zeros((0, 0), np.uint64) if drawn is None or not spare else drawn
        self._nearest, self._taken = nearest, np.zeros(num_experts, np.int64)
        places = self.places_for(level)
        super().__init__(self._choose(np.zeros((places, places))), places, level.blocks, rows)
        if spare:
            self.first_steps = STEPS_PER_CHOICE  # pairs of all experts prove next to nothing then

    @staticmethod
    def places_for(level: Level) -> int:
        """Return the rows of the relaxation's matrix."""
        return level.blocks * level.room

    def _choose(self, together: Array) -> Choice:
        """Return what tokens call, (E, blocks), and the pairs that count where they are together, (E, E)."""
        E, blocks = self._experts, self._level.blocks
        together = together[:E, :E].copy()
        if self._spare and self.choice:
            met = _met_by_further_replicas(self._pairs, self._level.room, self._taken)
            together += met + met.T
        # With replicas, even pairs at home may be served elsewhere, unless home's come first.
        own = (self._spare == 0 or self._nearest) and blocks <= MAX_HOMES
        called, pairs = np.zeros((E, blocks)), np.zeros((blocks if own else 1, E, E))
        by_replica = np.zeros((NUM_CLASSES if len(self._drawn) else 0, E, E))
        by_home = np.zeros((E, blocks))
        choose_representatives(self._ids, self._homes, self._drawn, together, called, pairs, by_home, by_replica)
        counted: Array = pairs.sum(axis=0)
        if own:
            counted -= pairs.min(axis=0)
        return called, counted, by_home, by_replica

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
        called = float(self._called.sum())
        at_home, kept = self._most_at_home(), self._most_kept()
        if not self.num_choices:
            return least_remote(called, at_home, kept, self._ids.shape[1])
        saved = at_home + kept
        return called - (min(saved, self._most_saved()) if self._spare else saved)

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

    def _most_saved(self) -> float:
        """Return the most assignments at home and pairs together away from home, where experts may have replicas.

        The first replica of each expert is in one block, and further ones are shared out where they bring most.
        """
        assert self.relaxation is not None
        called, pairs, by_home, by_replica = self.choice
        falling = np.cumsum(-np.sort(-called, axis=1), axis=1)
        gains = further_gains(
            falling,
            np.cumsum(_met_by_replicas(pairs, self._level.room), axis=1),
            _away_from(by_home) if self._nearest else None,
            by_replica,
            self._level.room,
            self._spare,
        )
        first = float(falling[:, 0].sum()) + self.relaxation.value
        return first + share_out(gains, self._spare, self._taken)


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


def further_gains(home: Array, met: Array, away: Array | None, by_replica: Array, slots: int, spare: int) -> Array:
    """Return what further replicas of each expert bring at most: assignments served at home, and pairs together.

    Replicas in d blocks bring the expert home to the tokens of these blocks. Each replica has ``slots - 1`` neighbours,
    so further ones in d - 1 other blocks meet at most the expert's best ``(d - 1) (slots - 1)`` partners; among tokens
    of other homes, where home's replica comes first; and among those that draw it, where replicas are drawn.

    Parameters
    ----------
    home : (E, B) float64
        Calls of the 1, 2, ... homes that call an expert most.
    met : (E, n) float64
        Pairs with the best ``slots - 1``, ``2 (slots - 1)``, ... partners.
    away : (E, B) float64 or None
        Pairs of tokens of the other homes, at most, with replicas in 1, 2, ... blocks; None where a token may use
        another replica than that of its home's block.
    by_replica : (P, E, E) float64
        As `choose_representatives` counts; no drawn replicas with P = 0.
    slots, spare : int
        Of a block, and replicas beyond one of each expert.

    Returns
    -------
    (E, n) float64
        Of 0, 1, ... further replicas; of more, no more.
    """
    E, blocks = home.shape
    together = np.zeros((E, blocks))  # by blocks
    width = min(blocks - 1, met.shape[1])
    together[:, 1 : width + 1] = met[:, :width]
    together[:, width + 1 :] = met[:, -1:]
    if away is not None:
        together = np.minimum(together, away)
    more = home - home[:, :1]
    columns = min(spare, max(blocks, MOST_CLASSES)) + 1
    most = np.maximum.accumulate(more + together, axis=1)
    gains = most[:, np.minimum(np.arange(columns), blocks - 1)]
    number, size = 0, min(slots - 1, E)
    for replicas in range(2, MOST_CLASSES + 1) if len(by_replica) else ():
        own = by_replica[number : number + replicas]
        number += replicas
        if replicas > columns:
            break
        best = np.partition(own, E - size - 1, axis=2)[:, :, E - size :].sum(axis=2) if size < E else own.sum(axis=2)
        drawn = best.sum(axis=0) - best.max(axis=0)  # whichever is taken to be the first
        reach = min(replicas, blocks)
        gains[:, replicas - 1] = (more[:, :reach] + np.minimum(together[:, :reach], drawn[:, None])).max(axis=1)
    gains[:, 0] = 0.0
    return gains


def _away_from(by_home: Array) -> Array:
    """Return the pairs of tokens whose home is in none of 1, 2, ... blocks, at most, (E, B)."""
    away: Array = by_home.sum(axis=1, keepdims=True) - np.cumsum(np.sort(by_home, axis=1), axis=1)
    return away


def _met_by_further_replicas(pairs: Array, slots: int, further: npt.NDArray[np.int64]) -> Array:
    """Return how much the further replicas of experts are with others, (E, E), by expert with the replicas."""
    rank = np.argsort(np.argsort(-pairs, axis=1, kind="stable"), axis=1, kind="stable")
    share = further / (further + 1.0)  # of the tokens that use the expert
    met: Array = np.where(rank < further[:, None] * (slots - 1), share[:, None], 0.0)
    return met
