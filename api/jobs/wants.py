"""What each lane takes: any plan, or short ones only; and what happens to a plan that was thought to be short.

A lane of its own for short plans means that they never wait for long ones. How long a plan will take is only known
from its request: one that has not ended after `OVERDUE_S` goes back to the queue as a long one, and for a while its
tenant has nothing more to do with this lane.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Executor

from api.jobs.processes import busy_s
from api.store.queue import SHORT_S, Wanted

__all__ = ["OVERDUE_S", "Patience", "Wants"]

OVERDUE_S = SHORT_S + 3.0  # the start of the search, and its summary, are not counted in its limit
OVERDUE_WALL_S = 20.0  # on a busy machine everything takes longer: what counts is the time of the processor
BARRED_S = 60.0


class Patience:
    """How long a plan may be in the lane for short ones, from when its worker has begun it.

    Parameters
    ----------
    executor : Executor
    threads : int or None
        Of the search; None for all cores.
    limit_s : float
        Of the processor, for each thread; of the clock where that can't be told.
    """

    def __init__(self, executor: Executor, threads: int | None, limit_s: float) -> None:
        self._executor, self._limit_s = executor, limit_s
        self._threads = threads or os.cpu_count() or 1
        self._begun, self._used = time.monotonic(), busy_s(executor)

    def over(self) -> bool:
        """Whether the plan was not short."""
        passed, now = time.monotonic() - self._begun, busy_s(self._executor)
        if self._used is None or now is None:
            return passed > self._limit_s
        return passed > max(OVERDUE_WALL_S, self._limit_s) or (now - self._used) / self._threads > self._limit_s


class Wants:
    """What lanes take.

    Parameters
    ----------
    most_long : int or None
        See `api.store.queue.Wanted`.
    """

    def __init__(self, most_long: int | None) -> None:
        self._any = Wanted(most_long=most_long)
        self._lock = threading.Lock()
        self._barred: dict[str, float] = {}

    def of(self, *, short: bool) -> Wanted:
        """Return what a lane takes now."""
        if not short:
            return self._any
        now = time.monotonic()
        with self._lock:
            self._barred = {tenant: since for tenant, since in self._barred.items() if now - since < BARRED_S}
            return Wanted(short=True, barred=frozenset(self._barred))

    def bar(self, tenant: str) -> None:
        """Keep a tenant from the lane for short plans, after one that was not."""
        with self._lock:
            self._barred[tenant] = time.monotonic()
