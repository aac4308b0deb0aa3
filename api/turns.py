"""Turns: who gets a free place next, when several tenants wait for it."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

__all__ = ["TooManyWaitingError", "Turns"]

Place = TypeVar("Place")
MOST_REMEMBERED = 1000  # tenants that do not wait, and whose last turn is known


class TooManyWaitingError(Exception):
    """A tenant has as many waiting as it may; `waiting` is how many."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} wait")
        self.waiting = waiting


class Turns(Generic[Place]):
    """Gives places to tenants in turns, whatever the number that each of them asks for. For one event loop.

    A free place goes to the tenant that has fewest, and of these to the one whose last turn is longest ago; of one
    tenant, to what came first.

    Parameters
    ----------
    places : sequence
        What there is to be given.
    most_of_one : int
        How many of them one tenant may have at a time.
    most_waiting : int
        How many of one tenant may wait.
    """

    def __init__(self, places: Sequence[Place], most_of_one: int, most_waiting: int) -> None:
        self._free = list(places)
        self._most_of_one = most_of_one
        self._most_waiting = most_waiting
        self._waiting: dict[str, deque[asyncio.Future[Place]]] = {}
        self._held: dict[str, int] = {}
        self._served: dict[str, int] = {}
        self._clock = itertools.count(1)

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[Place]:
        """Wait for a place, and have it until the block ends.

        Raises
        ------
        TooManyWaitingError
        """
        queue = self._waiting.setdefault(tenant, deque())
        if len(queue) >= self._most_waiting:
            raise TooManyWaitingError(len(queue))
        mine: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        self._give()
        try:
            place = await mine
        except BaseException:  # cancelled, maybe just after it was given one
            if mine.done() and not mine.cancelled():
                self._take_back(tenant, mine.result())
            elif mine in queue:
                queue.remove(mine)
            raise
        try:
            yield place
        finally:
            self._take_back(tenant, place)

    def _take_back(self, tenant: str, place: Place) -> None:
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._free.insert(0, place)  # what was used last is ready soonest
        self._give()

    def _give(self) -> None:
        for tenant in [tenant for tenant, queue in self._waiting.items() if not queue]:
            del self._waiting[tenant]
        while self._free:
            allowed = [tenant for tenant in self._waiting if self._held.get(tenant, 0) < self._most_of_one]
            if not allowed:
                return
            tenant = min(allowed, key=lambda name: (self._held.get(name, 0), self._served.get(name, 0)))
            queue = self._waiting[tenant]
            mine = queue.popleft()
            if not queue:
                del self._waiting[tenant]
            if mine.cancelled():
                continue
            self._served.pop(tenant, None)
            self._served[tenant] = next(self._clock)
            if len(self._served) > MOST_REMEMBERED:
                del self._served[next(iter(self._served))]
            self._held[tenant] = self._held.get(tenant, 0) + 1
            mine.set_result(self._free.pop(0))
