"""What a search and all its parts share."""

from __future__ import annotations

import math
import threading
import time
from typing import Literal

import numpy as np
import numpy.typing as npt

from placement import Problem, Score
from placement.plan.termination import gap_of
from solvers.searching.events import Event, Observer, ObserverError
from solvers.searching.limits import Limits
from solvers.survival.effort import Rows

__all__ = ["Record"]


class Record:
    """The best plan and bound of a search, and what its parts took note of."""

    def __init__(
        self, problem: Problem, limits: Limits, observe: Observer | None, interrupt: threading.Event | None = None
    ) -> None:
        self.problem = problem
        self.limits = limits
        self.observe = observe
        self.lock = threading.RLock()
        self.start = time.monotonic()
        self.improved = self.start
        self.cancelled = threading.Event() if interrupt is None else interrupt
        self.table: npt.NDArray[np.int32] | None = None
        self.score: float | None = None
        self.scored: Score | None = None
        self.order: tuple[int, ...] = ()
        self.solver = ""
        self.bound: float | None = None
        self.exhausted = False
        self.clock_ended = self.work_ended = False
        self.offer_s = math.inf
        self.notes: list[str] = []
        self.rows = Rows(problem)

    def end_by_clock(self) -> None:
        """Take note that the clock cut some part short."""
        self.clock_ended = True

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    @property
    def gap(self) -> float | None:
        """Relative distance of score and bound."""
        return gap_of(self.score, self.bound)

    def emit(
        self, kind: Literal["incumbent", "bound"], solver: str, table: npt.NDArray[np.int32] | None = None
    ) -> None:
        """Tell the observer; one that fails ends the search."""
        if self.observe is not None:
            event = Event(
                kind=kind,
                elapsed_s=self.elapsed,
                solver=solver,
                score=self.score,
                bound=self.bound,
                gap=self.gap,
                table=table,
            )
            try:
                self.observe(event)
            except Exception as error:
                self.cancelled.set()
                raise ObserverError from error
