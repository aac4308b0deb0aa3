"""A relaxation and the tokens of a layer play against each other, for a lower bound of the messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from solvers.bounds.relaxation import LoadRows, Relaxation

__all__ = ["STEPS_PER_CHOICE", "Choice", "Game"]

Array = npt.NDArray[np.float64]
Choice = tuple[Array, ...]
# Of the relaxation, against the first choice; all three chosen by trial: any values are safe, they decide how fast the
# bound rises.
FIRST_STEPS = 4
STEPS_PER_CHOICE = 2  # of the relaxation, before tokens choose again
LEAST_SHARE = 0.02  # of the last choice in the mean of all of them


class Game(ABC):
    """A lower bound from what tokens choose to count, which any choice keeps safe, improved by `iterate`.

    What a choice counts falls with the weight of the pairs of experts that are together, which a relaxation bounds. Its
    steps lead to the pairs that stay together most, and tokens choose what counts most against those. Counts and
    weights are linear in the choice, so the mean of choices is one, too; it tends to the best (fictitious play).

    Parameters
    ----------
    first : tuple of float64 arrays
        First choice.
    places, blocks : int
        Of the relaxation.
    rows : LoadRows, optional

    Attributes
    ----------
    choice : tuple of float64 arrays
        Mean of the choices so far; what its arrays are, `_choose` says.
    num_choices : int
        After the first one.
    places : int
    value : float
        The best bound so far, in messages.
    iterations : int
        Steps of the relaxation.
    first_steps : int
        Against the first choice.

    References
    ----------
    Fictitious play: Robinson, Annals of Mathematics 54, 1951; ``docs/bounds.md``.
    """

    max_size: ClassVar[int] = 1536  # rows of the largest matrix
    choice: Choice = ()

    def __init__(self, first: Choice, places: int, blocks: int, rows: LoadRows | None = None) -> None:
        self.choice, self.num_choices, self.places = first, 0, places
        self.first_steps = FIRST_STEPS
        self.value, self.iterations = 0.0, 0
        self.relaxation: Relaxation | None = None
        if places <= self.max_size:
            self.relaxation = Relaxation(self._weight(), 1, blocks, rows)
        self.value = max(self.value, self._count())

    @abstractmethod
    def _choose(self, together: Array) -> Choice:
        """Return what counts most for the tokens if pairs are together as in `together` (places, places)."""

    @abstractmethod
    def _weight(self) -> Array:
        """Return the weight of the relaxation, (places, places)."""

    @abstractmethod
    def _count(self) -> float:
        """Return the bound of the present choice, with the relaxation's bound of what is together.

        It falls when tokens choose anew, and rises again as the relaxation follows.
        """

    def iterate(self, count: int, stop: Callable[[], bool] = lambda: False) -> float:
        """Take `count` steps, or fewer if `stop` says so, and return the best bound so far."""
        last = self.iterations + count
        while self.iterations < last and not stop():
            self.play(min(STEPS_PER_CHOICE, last - self.iterations), stop)
        return self.take_bound()

    def play(self, steps: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Let tokens choose once, and take `steps` steps, or fewer if `stop` says so, without a bound."""
        relaxation = self.relaxation
        assert relaxation is not None
        if self.iterations >= self.first_steps:
            new, share = self._choose(relaxation.together), max(LEAST_SHARE, 2 / (self.num_choices + 2))
            self.choice = tuple(old + share * (own - old) for old, own in zip(self.choice, new, strict=True))
            self.num_choices += 1
            relaxation.reweigh(self._weight())
        relaxation.advance(steps, stop)
        self.iterations += steps

    def take_bound(self) -> float:
        """Return the best bound so far, that of the present choice included."""
        assert self.relaxation is not None
        self.relaxation.take_bound()
        self.value = max(self.value, self._count())
        return self.value
