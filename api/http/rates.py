"""Limits of requests per client: a bucket of tokens for each."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from api.http.problems import ProblemError

__all__ = ["Rates"]

MAX_CLIENTS = 10_000  # the longest unseen are forgotten; their buckets would be full by then


class Rates:
    """Buckets that fill at a steady rate; a request takes one token.

    Parameters
    ----------
    per_s : float or None
        Requests per second in the long run; None for no limit.
    burst : int
        Requests at once.
    clock : callable
        Seconds.
    """

    def __init__(self, per_s: float | None, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, client: str) -> None:
        """Take a token of a client's; `ProblemError` (429, with Retry-After) if there is none."""
        if self._per_s is None:
            return
        with self._lock:
            now = self._clock()
            tokens, then = self._buckets.pop(client, (float(self._burst), now))
            tokens = min(float(self._burst), tokens + (now - then) * self._per_s)
            enough = tokens >= 1.0
            self._buckets[client] = (tokens - 1.0 if enough else tokens, now)
            if len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
        if not enough:
            wait = max(1, math.ceil((1.0 - tokens) / self._per_s))
            detail = f"More than {self._per_s:g} requests per second, {self._burst} at once."
            raise ProblemError("too-many-requests", detail, headers={"Retry-After": str(wait)})

    def give_back(self, client: str) -> None:
        """Put a token back: the request was not one of those that the limit is for."""
        with self._lock:
            if client in self._buckets:
                tokens, then = self._buckets[client]
                self._buckets[client] = (tokens + 1.0, then)
