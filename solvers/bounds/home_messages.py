"""Tokens that need another block than their home's: at least so many, from what one block can hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.bounds.kernels.home_pairs import choose_pairs
from solvers.bounds.token_game import Array, Choice, Game

__all__ = ["HomeMessages"]


class HomeMessages(Game):
    """A lower bound of the tokens of one home that use an expert that is not there, improved by `iterate`.

    A block of `room` slots holds that many experts at most, and so all experts of some tokens. If x says which it
    holds, a token stays at home at most ``x_i x_j`` times, for any two of its experts, or ``x_i`` for any one. Tokens
    choose, and the relaxation holds the experts that keep most at home: two blocks, of which an *anchor* marks the
    home, so that ``x_i = Y[0,i]`` and ``x_i x_j = (Y[i,j] + Y[0,i] + Y[0,j] - 1) / 2``.

    Replicas need no count of their own, as homes are looked at one by one: that is why this bound is for problems with
    replicas. Where there are two blocks, nothing else can be remote.

    Parameters
    ----------
    ids : (n, K) integers
        Experts of the tokens with this home, -1 for none.
    num_experts, room : int
        At most ``2 room + 1`` experts.
    """

    def __init__(self, ids: npt.NDArray[np.integer[Any]], num_experts: int, room: int) -> None:
        self._ids, self._experts = np.ascontiguousarray(ids, np.int32), num_experts
        self._tokens = int((self._ids >= 0).any(axis=1).sum())
        places = self.places_for(room)
        super().__init__(self._choose(np.full((places, places), 0.5)), places, 2)

    @staticmethod
    def places_for(room: int) -> int:
        """Return the rows of the relaxation's matrix: the anchor and its experts; the others, and empty places."""
        return 2 * (room + 1)

    def _choose(self, together: Array) -> Choice:
        """Return the tokens that choose each pair, (E, E), both halves, and each expert, (E,)."""
        E = self._experts
        pairs, single = np.zeros((E, E)), np.zeros(E)
        choose_pairs(self._ids, together, pairs, single)
        return pairs, single

    def _weight(self) -> Array:
        pairs, single = self.choice
        weight, E = np.zeros((self.places, self.places)), self._experts
        weight[:E, :E] = pairs / 4
        weight[E, :E] = weight[:E, E] = pairs.sum(axis=1) / 4 + single / 2
        return weight

    def _count(self) -> float:
        if self.relaxation is None:
            return 0.0
        pairs, _ = self.choice
        at_home = self.relaxation.value - float(pairs.sum()) / 4
        return self._tokens - at_home
