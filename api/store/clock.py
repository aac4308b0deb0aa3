"""Whether the clock can be trusted to say that something is old: what was deleted by a clock that jumped is gone."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import select, update

from api.store.database import Database
from api.store.models import service

__all__ = ["HOLD_S", "Clock"]

JUMP_S = 300.0  # more than this off the time that has passed is a jump, not a correction
GAP_S = 86_400.0  # so long may lie between two servers; the time in between can't be checked
BACK_S = 60.0
HOLD_S = 86_400.0  # how long a service runs after a jump before it deletes anything by age


class Clock:
    """The clock, as the database has seen it: a jump is remembered over restarts.

    Parameters
    ----------
    database : Database
    now, passed : callable
        The clock, and one that never jumps.
    """

    def __init__(
        self,
        database: Database,
        now: Callable[[], float] = time.time,
        passed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._now, self._passed = now, passed
        self._last: tuple[float, float] | None = None

    def hold_s(self) -> float:
        """Look at the clock; return for how long nothing may be deleted by age, 0 if it may be.

        A jump, or a first look after more than a day, starts a day in which the service must run first.
        """
        now, passed = self._now(), self._passed()
        with self._database.write() as connection:
            seen_at, hold_s = connection.execute(select(service.c.seen_at, service.c.hold_s)).one()
            if self._last is None:
                ran, jumped = 0.0, seen_at is None or not -BACK_S <= now - seen_at <= GAP_S
            else:
                ran = passed - self._last[1]
                jumped = abs(now - self._last[0] - ran) > JUMP_S
            hold_s = HOLD_S if jumped else max(0.0, hold_s - ran)
            connection.execute(update(service).values(seen_at=now, hold_s=hold_s))
        self._last = now, passed
        return hold_s
