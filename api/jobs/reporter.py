"""Between a running search and the store: the lease is kept, news are written, a cancellation ends the search."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.store.leases import Lease, StaleAttemptError
from solvers import Event
from traces import Batch, Trace

__all__ = ["AttemptInterruptedError", "Reporter"]

TICK_S = 0.25  # how often news are written, at most, and how soon a cancellation is noticed
log = structlog.get_logger(__name__)


class AttemptInterruptedError(Exception):
    """The plan was cancelled, or given to another attempt, while the trace was read."""


class Reporter:
    """The thread that keeps the lease, writes news to the store, and notices a cancellation.

    Parameters
    ----------
    lease : Lease

    Attributes
    ----------
    interrupt : threading.Event
        Set when the search is to end.
    cancelled, stale, overtime : bool
        Why: a client asked for it, the plan was given to another attempt, or `deadline` has passed.
    deadline : float or None
        On the monotonic clock; None for no end.
    plan_text : callable or None
        Returns the plan file of an incumbent, from its event and the bound; None as long as there is no problem.
    """

    def __init__(self, lease: Lease) -> None:
        self.interrupt = threading.Event()
        self.cancelled = self.stale = self.overtime = False
        self.deadline: float | None = None
        self.plan_text: Callable[[Event, float | None], str] | None = None
        self._lease = lease
        self._lock = threading.Lock()
        self._news: Event | None = None
        self._incumbent: Event | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def observe(self, event: Event) -> None:
        """Take note of an event; called by the search."""
        with self._lock:
            self._news = event
            if event.table is not None:
                self._incumbent = event

    def watched(self, trace: Trace) -> Trace:
        """Return the trace; reading it ends when the plan is to stop."""
        read = trace.read

        def read_watched(max_tokens: int) -> Iterator[Batch]:
            for batch in read(max_tokens):
                if self.interrupt.is_set():
                    raise AttemptInterruptedError
                yield batch

        return replace(trace, read=read_watched)

    def _run(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(TICK_S):
            try:
                if self._flush():
                    renewed = time.monotonic()
                elif time.monotonic() - renewed > self._lease.lease_s / 4:
                    self._lease.renew()
                    renewed = time.monotonic()
                if not self.cancelled and self._lease.cancelled():
                    self.cancelled = True
                    self.interrupt.set()
            except StaleAttemptError:
                self.stale = True
                self.interrupt.set()
                return
            except SQLAlchemyError:
                log.exception("store.unreachable")  # the next tick tries again; meanwhile the lease may run out
            if self.deadline is not None and time.monotonic() > self.deadline and not self.interrupt.is_set():
                self.overtime = True
                self.interrupt.set()

    def _flush(self) -> bool:
        with self._lock:
            news, incumbent = self._news, self._incumbent
            self._news = self._incumbent = None
        if news is None:
            return False
        plan = None
        if incumbent is not None and self.plan_text is not None:
            plan = self.plan_text(incumbent, news.bound)
        self._lease.report(score=news.score, bound=news.bound, elapsed_s=news.elapsed_s, plan=plan)
        return True
