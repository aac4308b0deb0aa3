"""The messages of a layer's tokens on one level: at least so many, from pairs of experts that can't be together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement.cost.bounds import Level
from solvers.bounds.draws import MOST_DRAWN, Draws
from solvers.bounds.further_replicas import further_gains, met_by_further_replicas, most_more, most_together
from solvers.bounds.kernels.prices import home_prices
from solvers.bounds.kernels.representatives import choose_representatives
from solvers.bounds.kernels.spare_replicas import share_out
from solvers.bounds.relaxation import LoadRows
from solvers.bounds.token_game import LEAST_SHARE, Array, Choice, Game

__all__ = ["LayerMessages", "least_remote"]

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

    With replicas, one of each expert at random, with what it calls and is together with, stands for all of them, and
    what others bring beyond that is shared out (`further_gains`). Tokens know how much each expert is at home by then.

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
    node_of_block : (blocks,) integers, optional
        Where tokens draw among the replicas in their home's node, if there are any.
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
        node_of_block: npt.NDArray[np.integer[Any]] | None = None,
    ) -> None:
        # Home by home, so that what a home's tokens count stays in the cache. One type each, for which the loop is
        # compiled once.
        order = np.argsort(homes, kind="stable")
        self._ids, self._homes = ids[order].astype(np.int32), homes[order].astype(np.int64)
        self._experts, self._level, self._spare = num_experts, level, spare
        self._nearest, self._taken = nearest, np.zeros(num_experts, np.int64)
        self._draws: Draws | None = None
        if drawn is not None and spare:
            self._draws = Draws(
                self._ids,
                self._homes,
                drawn[order],
                level.blocks,
                level.room,
                told_apart=self._homes_apart,
                node_of_block=node_of_block,
            )
        # Until draws are counted, tokens choose as if they were even.
        self._above_even = np.full((num_experts, MOST_DRAWN + 1, 2), np.inf if self._draws is None else 0.0)
        self._at_home = np.full((num_experts, level.blocks), 1 / level.blocks)
        places = self.places_for(level)
        super().__init__(self._choose(np.zeros((places, places))), places, level.blocks, rows)

    @staticmethod
    def places_for(level: Level) -> int:
        """Return the rows of the relaxation's matrix."""
        return level.blocks * level.room

    def _choose(self, together: Array) -> Choice:
        """Return what tokens call, (E, blocks), and the pairs that count where they are together, (E, E)."""
        E, blocks = self._experts, self._level.blocks
        if self.choice and blocks > 2:  # of two, what is at home and what is together are one and the same
            self._place()
        called, by_home = np.zeros((E, blocks)), np.zeros((E, blocks))
        pairs = np.zeros((blocks if self._homes_apart else 1, E, E))
        tokens, top_k = self._ids.shape
        counts = np.zeros((tokens if self._draws is not None else 0, top_k * (top_k - 1) // 2))
        together = together[:E, :E].copy()
        if self._spare and self.choice and self._draws is None:
            met = met_by_further_replicas(self._pairs, self._level.room, self._taken)
            together += met + met.T
        choose_representatives(self._ids, self._homes, together, self._at_home, called, pairs, by_home, counts)
        counted: Array = pairs.sum(axis=0)
        if self._homes_apart:
            counted -= pairs.min(axis=0)
        return called, counted, by_home, counts

    @property
    def _homes_apart(self) -> bool:
        """Whether pairs at home are known not to count: with replicas, only if home's come first."""
        return (self._spare == 0 or self._nearest) and self._level.blocks <= MAX_HOMES

    def _place(self) -> None:
        """Add to the mean of where experts are: in the homes that call them most, for what a place there is worth."""
        if self._spare:
            share_out(self._further_gains(), self._spare, self._taken)
        worth = self._called - home_prices(self._called, self._level.room)
        rank = np.argsort(np.argsort(-worth, axis=1, kind="stable"), axis=1, kind="stable")
        share = max(LEAST_SHARE, 1 / (self.num_choices + 5))  # slowly: the first ones tell little
        self._at_home += share * ((rank <= self._taken[:, None]) - self._at_home)

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
        prices = home_prices(self._called, self._level.room)
        first = float((self._called - prices).max(axis=1).sum() + self._level.room * prices.sum())
        first += self.relaxation.value
        if self._draws is not None:
            self._above_even = np.zeros((self._experts, MOST_DRAWN + 1, 2))
            least = first + share_out(self._further_gains(), self._spare, self._taken)
            if float(self._called.sum()) - least <= self.value:
                return np.inf  # counting takes long, and nothing can be gained even if all draws are even
        self._above_even = np.full((self._experts, MOST_DRAWN + 1, 2), np.inf)
        while True:
            further = share_out(self._further_gains(), self._spare, self._taken)
            # What the draws of the others are does not matter: they have no further replicas even so.
            unknown = np.flatnonzero((self._taken > 0) & np.isinf(self._above_even[:, 0, 0]))
            if self._draws is None or not len(unknown):
                return first + further
            self._draws.above_even(self.choice[3], self._pairs, unknown, self._above_even)

    def _further_gains(self) -> Array:
        """Return what further replicas bring, with draws as they were when they were counted last."""
        called, pairs, by_home, _ = self.choice
        worth = called - home_prices(called, self._level.room)
        falling = np.cumsum(-np.sort(-worth, axis=1), axis=1)
        apart = by_home if self._nearest else None
        return further_gains(falling, pairs, apart, self._above_even, self._level.room, self._spare)


def least_remote(experts: float, at_home: float, together: float, top_k: int) -> float:
    """Return the least blocks other than the home's, from bounds on experts at home and on pairs together."""
    best = 0.0
    for m in range(1, max(2, top_k)):
        best = max(best, 2 / (m + 1) * (experts - at_home) - 2 / (m * (m + 1)) * together)
    return best
