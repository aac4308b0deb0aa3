"""Two blocks: tokens that need another block than their home's: at least so many, from what one block can hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.bounds.kernels.representatives import choose_representatives
from solvers.bounds.token_game import STEPS_PER_CHOICE, Array, Choice, Game

__all__ = ["HomeMessages", "TwoHomes"]

# Of the prices, per round: tokens per expert that one more in both homes would cost. Chosen by trial: from half of it
# to twice as much prove the same after 120 rounds; ten times as much swings.
PRICE_STEP = 0.05


class HomeMessages(Game):
    """A lower bound of the tokens of one of two homes that use an expert that is not there, improved by `iterate`.

    A block of `room` slots holds that many experts at most, and so all experts of some tokens. A token sends a message
    if any of its experts is away, which a parabola through its representatives says as in `LayerMessages`: of s that
    are away, ``[s > 0] >= a s - b s (s-1)/2``. If x says which experts the home holds, i and j are both away
    ``1 - x_i - x_j + x_i x_j`` times. Tokens choose, and the relaxation holds the experts that keep most at home: two
    blocks, of which an *anchor* marks the home, so that ``x_i = Y[0,i]`` and
    ``x_i x_j = (Y[i,j] + Y[0,i] + Y[0,j] - 1) / 2``.

    Replicas need no count of their own, as homes are looked at one by one: that is why this bound is for problems with
    replicas. Where there are two blocks, nothing else can be remote.

    Parameters
    ----------
    ids : (n, K) integers
        Experts of the tokens with this home, -1 for none.
    num_experts, room : int
        At most ``2 room + 1`` experts.

    Attributes
    ----------
    prices : (E,) float64
        Messages that each expert pays for being at home, beside what it saves: `value` counts what is left after that.
    """

    def __init__(self, ids: npt.NDArray[np.integer[Any]], num_experts: int, room: int) -> None:
        self._ids, self._experts = np.ascontiguousarray(ids, np.int32), num_experts
        self._homes = np.zeros(len(ids), np.int64)
        self.prices = np.zeros(num_experts)
        places = self.places_for(room)
        super().__init__(self._choose(np.full((places, places), 0.5)), places, 2)

    @staticmethod
    def places_for(room: int) -> int:
        """Return the rows of the relaxation's matrix: the anchor and its experts; the others, and empty places."""
        return 2 * (room + 1)

    @property
    def at_home(self) -> Array:
        """How much each expert is at home in the relaxation, (E,)."""
        assert self.relaxation is not None
        return self.relaxation.together[self._experts, : self._experts]

    def _choose(self, together: Array) -> Choice:
        """Return what tokens call, (E,), and what pairs count where they are both away, (E, E), both halves."""
        E = self._experts
        at_home = np.clip(together[E, :E], 0.0, 1.0)
        both_away = np.clip((1 - at_home[:, None] - at_home + together[:E, :E]) / 2, 0.0, 1.0)
        called, by_home, pairs = np.zeros((E, 1)), np.zeros((E, 1)), np.zeros((1, E, E))
        uncounted = np.zeros((0, 0))
        choose_representatives(
            self._ids, self._homes, both_away, at_home[:, None].copy(), called, pairs, by_home, uncounted
        )
        return called[:, 0], pairs[0]

    def _weight(self) -> Array:
        called, pairs = self.choice
        weight, E = np.zeros((self.places, self.places)), self._experts
        weight[:E, :E] = pairs / 4
        weight[E, :E] = weight[:E, E] = (called - pairs.sum(axis=1) / 2 + self.prices) / 2
        return weight

    def _count(self) -> float:
        if self.relaxation is None:
            return 0.0
        called, pairs = self.choice
        return float(called.sum()) - float(pairs.sum()) / 4 - self.relaxation.value

    def count(self) -> float:
        """Return the bound at the present choice and prices: messages, less the prices of what is at home."""
        assert self.relaxation is not None
        self.relaxation.take_bound()
        return self._count()


class TwoHomes:
    """A lower bound of the messages between two blocks, from what either can hold: together, all experts.

    Each expert is in one home or both. So whatever price is paid for each expert that is at home, twice for those in
    both homes, at least the sum of the prices is paid: messages are at least what each home's game says beyond prices,
    and the prices. They rise for experts that neither game holds, and fall for those that both hold (a subgradient).

    Parameters
    ----------
    ids : (n, K) integers
        -1 for none.
    homes : (n,) integers
        Block of each token's home, 0 or 1.
    num_experts, room : int

    Attributes
    ----------
    value : float
        The best bound so far, in messages.
    iterations : int
        Steps of either game.
    relaxation : object or None
        None where the matrix would be too large.
    """

    def __init__(
        self, ids: npt.NDArray[np.integer[Any]], homes: npt.NDArray[np.integer[Any]], num_experts: int, room: int
    ) -> None:
        self._games = [HomeMessages(ids[homes == home], num_experts, room) for home in range(2)]
        self._prices, self._step = np.zeros(num_experts), PRICE_STEP * len(ids) / num_experts
        self.relaxation = self._games[0].relaxation
        self.value, self.iterations = sum(game.value for game in self._games), 0

    def iterate(self, count: int, stop: Callable[[], bool] = lambda: False) -> float:
        """Take `count` steps, or fewer if `stop` says so, and return the best bound so far."""
        last = self.iterations + count
        while self.iterations < last and not stop():
            steps = min(STEPS_PER_CHOICE, last - self.iterations)
            if self.iterations >= self._games[0].first_steps:
                missing = 1 - sum(game.at_home for game in self._games)
                self._prices = np.maximum(0.0, self._prices + self._step * missing)
            for game in self._games:  # both in full, so that they have the same prices
                game.prices = self._prices
                game.play(steps)
            self.iterations += steps
        found = sum(game.count() for game in self._games) + float(self._prices.sum())
        self.value = max(self.value, found)
        return self.value
