"""How much an exact repair may cost: a count of nodes, which is the same on any machine, and a search's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem, Termination
from solvers.plans import NoPlanError

__all__ = ["Effort", "OutOfEffortError", "Rows"]

MAX_ROWS = 4096  # that are kept, of a layer each


class OutOfEffortError(NoPlanError):
    """A layer was not mended in the effort allowed, which proves nothing: a search goes on with what it has."""

    def __init__(self, detail: str) -> None:
        super().__init__(Termination(reason="no_plan", detail=detail))


@dataclass(eq=False)
class Rows:
    """Layers of one problem that were mended before; None for those that took too many nodes.

    Parameters
    ----------
    problem : Problem
        Rows of other problems are not kept.
    """

    problem: Problem
    known: dict[tuple[int, bytes], npt.NDArray[np.int32] | None] = field(default_factory=dict)

    def keep(self, key: tuple[int, bytes], row: npt.NDArray[np.int32] | None) -> None:
        """Keep a row, (S,); the oldest are dropped together when there are too many."""
        if len(self.known) >= MAX_ROWS:
            self.known.clear()
        self.known[key] = row


@dataclass(frozen=True, kw_only=True, eq=False)
class Effort:
    """What a search allows a repair.

    Attributes
    ----------
    deadline : float or None
        Of `time.monotonic`; None without a clock.
    stopped : callable
        Whether the search is cancelled; asked before each layer.
    on_clock : callable
        Told when the clock cut a repair short: the same seed may give another plan then.
    rows : Rows or None
    """

    deadline: float | None = None
    stopped: Callable[[], bool] = lambda: False
    on_clock: Callable[[], Any] = lambda: None
    rows: Rows | None = None

    @property
    def left_s(self) -> float | None:
        """Seconds left; None without a clock."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
