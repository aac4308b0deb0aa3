"""The one channel between a solver and the world: plans and bounds go in, time and cancellation come out."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
import numpy.typing as npt

from placement import Problem, score
from placement.cost.feasibility import broken_constraints
from placement.plan.termination import Limit
from solvers.searching.events import Observer
from solvers.searching.fill import completed
from solvers.searching.limits import Limits
from solvers.searching.outcome import Outcome
from solvers.searching.record import Record
from solvers.survival.effort import Effort, OutOfEffortError

__all__ = ["Search"]

OPTIMALITY = 1e-9  # relative difference of score and bound that counts as none: scores are compared to 1e-9 all over
GRACE_S = 1.0  # in all, beside the time limit, for mending the first plan: without it there is none
MANY_OFFERS = 100  # that fit into a part's time: with fewer, none is made for plans that hardly ever win

Table = npt.NDArray[np.integer]


class Search:
    """A running search, or a part of one.

    Solvers never look at a clock, print, or report their own objective: they `offer` maps, raise `bound`, ask
    `progress` and stop when `done`.

    Parameters
    ----------
    problem : Problem
    limits : Limits
    seed : int
    workers : int
        Threads to use.
    observe : callable, optional
        Called with each `Event`, from the thread that causes it.
    start : (L, S) integers, optional
        Map of an earlier plan to start from.
    interrupt : threading.Event, optional
        Set it, from any thread, to cancel the search.
    executor : optional
        Makes an executor of ``concurrent.futures`` that layers are dealt out to under a work limit.
    """

    def __init__(
        self,
        problem: Problem,
        limits: Limits,
        *,
        seed: int = 0,
        workers: int = 1,
        observe: Observer | None = None,
        start: Table | None = None,
        interrupt: threading.Event | None = None,
        executor: Callable[[], Executor] | None = None,
    ) -> None:
        self.problem, self.executor = problem, executor
        self.seed, self.workers = seed, workers
        self.start, self.solver = start, ""
        self._shared = Record(problem, limits, observe, interrupt)
        self._begin = self._shared.start
        self._deadline = None if limits.time_s is None else self._begin + limits.time_s
        self.work = limits.work
        self._rank: tuple[int, ...] = ()

    def part(
        self, share: float, rank: int, solver: str = "", *, work_share: float | None = None, spare_offers: int = 0
    ) -> Search:
        """Return a search for a part of what remains.

        Parameters
        ----------
        share : float
            Share of the time that remains.
        work_share : float, optional
            Share of this search's work; `share` by default. Parts that run at once share the work, but not the time.
        rank : int
            Place among the parts: equally good plans are told apart by it, whoever comes first.
        solver : str
            Name to report.
        spare_offers : int
            Offers to keep time for after the part: on large problems each takes a while.
        """
        child = object.__new__(Search)
        child.__dict__.update(self.__dict__)
        child.solver = solver or self.solver
        child._rank = (*self._rank, rank)
        child._begin = time.monotonic()
        if self._deadline is not None:
            left = max(0.0, self._deadline - child._begin)
            spare = spare_offers * self._shared.offer_s if spare_offers else 0.0
            child._deadline = child._begin + share * max(left / 2, left - spare)
        if self.work is not None:
            child.work = max(1, int(self.work * (share if work_share is None else work_share)))
        return child

    def offer(self, table: Table, step: int = 0) -> float:
        """Propose a map.

        Parameters
        ----------
        table : (L, S) integers
        step : int
            Number of the offer within this part, to tell equally good plans apart.

        Returns
        -------
        float
            Its score under the problem's objective, with every slot filled if the problem wants it, and copies added
            where something has to survive that the method knows nothing of. Infinite where these were not found in
            the effort allowed: the map is left out, with a note.

        Raises
        ------
        RuntimeError
            If the map breaks a hard constraint: a fault of the solver.
        """
        try:
            table = completed(self.problem, table, self.effort)
        except OutOfEffortError as error:
            self.note(f"a map was left out: {error}")
            return math.inf
        broken = broken_constraints(self.problem, table)
        if broken.found:
            faults = "; ".join(str(violation) for violation in broken.found)
            raise RuntimeError(f"Solver {self.solver!r} made an invalid plan: {faults}")
        shared, begin = self._shared, time.monotonic()
        scored = score(self.problem, table)
        # The least: the first one may load or compile what scoring needs.
        shared.offer_s, total = min(shared.offer_s, time.monotonic() - begin), scored.total
        order = (*self._rank, step)
        with shared.lock:
            if shared.score is None or (total, order) < (shared.score, shared.order):
                better = shared.score is None or total < shared.score
                shared.table = np.array(table, dtype=np.int32)
                shared.score, shared.order, shared.solver = total, order, self.solver
                shared.scored = scored
                if better:
                    shared.improved = time.monotonic()
                    shared.emit("incumbent", self.solver, shared.table)
        return total

    def bound(self, value: float) -> None:
        """Report a proven lower bound of the objective."""
        shared = self._shared
        with shared.lock:
            if shared.bound is None or value > shared.bound:
                shared.bound = value
                shared.emit("bound", self.solver)

    def note(self, text: str) -> None:
        """Say how the plan was made, for the plan's provenance: which of its ways a method took, what it left out."""
        shared = self._shared
        with shared.lock:
            if (note := f"{self.solver}: {text}") not in shared.notes:
                shared.notes.append(note)

    def exhausted(self) -> None:
        """Report that no better plan exists (the whole space was searched)."""
        self._shared.exhausted = True

    def cancel(self) -> None:
        """Ask all parts to stop; the incumbent is kept."""
        if not self._shared.cancelled.is_set():  # again, by a signal within the first time, it would wait for itself
            self._shared.cancelled.set()

    @property
    def proven(self) -> bool:
        """Whether no plan can beat the incumbent."""
        shared = self._shared
        if shared.score is None:
            return False
        closed = shared.bound is not None and shared.score - shared.bound <= OPTIMALITY * max(1.0, abs(shared.score))
        return shared.exhausted or closed

    @property
    def best(self) -> npt.NDArray[np.int32] | None:
        """Map of the incumbent, (L, S), or None."""
        return self._shared.table

    @property
    def best_score(self) -> float | None:
        """Score of the incumbent, or None."""
        return self._shared.score

    @property
    def done(self) -> bool:
        """Whether to stop now: time is up, the gap is small enough, nothing improves, or the search is cancelled."""
        return self.limit is not None or (self._deadline is not None and time.monotonic() >= self._deadline)

    @property
    def remaining_s(self) -> float | None:
        """Seconds left for this part; None without a time limit. For handing limits on to a library solver."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    @property
    def effort(self) -> Effort:
        """What an exact repair may cost now: this part's time, or that of all and a little more without a plan."""
        shared, deadline = self._shared, self._deadline
        if shared.score is None and shared.limits.time_s is not None:
            deadline = shared.start + shared.limits.time_s + GRACE_S
        return Effort(
            deadline=deadline, stopped=shared.cancelled.is_set, on_clock=shared.end_by_clock, rows=shared.rows
        )

    @property
    def offers_take_long(self) -> bool:
        """Whether an offer takes too much of this part's time to be made for plans that hardly ever win."""
        return self.offers_that_fit < MANY_OFFERS

    @property
    def offers_that_fit(self) -> float:
        """How many offers fit into this part's time, as scoring replays a sample of tokens, say; infinite without."""
        left, taken = self.remaining_s, self._shared.offer_s
        return math.inf if left is None or not 0 < taken < math.inf else left / taken

    @property
    def wanted_gap(self) -> float | None:
        """Gap at which the search ends; None without such a limit."""
        return self._shared.limits.gap

    @property
    def limit(self) -> Limit | None:
        """The limit that ends the whole search, or None while there is none."""
        shared, limits, now = self._shared, self._shared.limits, time.monotonic()
        if shared.cancelled.is_set():
            return "cancelled"
        if limits.time_s is not None and now >= shared.start + limits.time_s:
            return "time"
        if limits.gap is not None and shared.gap is not None and shared.gap <= limits.gap:
            return "gap"
        if limits.stall_s is not None and shared.score is not None and now >= shared.improved + limits.stall_s:
            return "no_improvement"
        return None

    def outcome(self) -> Outcome:
        """Return what the whole search, with all its parts, has come to."""
        shared, limit, proven = self._shared, self.limit, self.proven
        with shared.lock:
            if limit is None and not proven:
                limit = "time" if shared.clock_ended else "work" if shared.work_ended else None
            return Outcome(
                table=shared.table,
                score=shared.scored,
                solver=shared.solver,
                bound=shared.bound,
                proven=proven,
                limit=limit,
                clocked=shared.clock_ended,
                notes=tuple(shared.notes),
                elapsed_s=shared.elapsed,
            )

    def progress(self, spent: int) -> float:
        """Return how much of this part is used up, from 0 to 1.

        Parameters
        ----------
        spent : int
            Trials that the caller has made out of this part's `work`.
        """
        if self.limit is not None:
            return 1.0
        used = 0.0 if self.work is None else spent / self.work
        self._shared.work_ended |= used >= 1.0
        if self._deadline is not None:
            span = self._deadline - self._begin
            clock = (time.monotonic() - self._begin) / span if span > 0 else 1.0
            self._shared.clock_ended |= clock >= 1.0
            used = max(used, clock)
        return min(1.0, used)
