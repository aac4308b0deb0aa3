"""What each lane takes: any plan, or short ones only; and what happens to a plan that was thought to be short.

A lane of its own for short plans means that they never wait for long ones. How long a plan will take is only known
from its request: one that has not ended after `OVERDUE_S` goes back to the queue as a long one, and for a while its
tenant has nothing more to do with this lane.
"""

from __future__ import annotations

import threading
import time

from api.store.queue import SHORT_S, Wanted

__all__ = ["OVERDUE_S", "Wants"]

OVERDUE_S = SHORT_S + 3.0  # the start of the search, and its summary, are not counted in its limit
BARRED_S = 60.0


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
