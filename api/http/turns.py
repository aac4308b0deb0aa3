"""Turns: work that takes long is done in few threads, and of each tenant one piece after another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import anyio.to_thread
from anyio import CapacityLimiter

__all__ = ["Turns"]

Result = TypeVar("Result")


class Turns:
    """Lets tenants in, each of them once at a time, so that who asks a lot waits for himself; nobody holds a thread.

    Used on one event loop.

    Parameters
    ----------
    threads : int
        Pieces of work at once, of all tenants together.
    """

    def __init__(self, threads: int) -> None:
        self._most = threads
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, tenant: str) -> AsyncIterator[None]:
        """Wait until nothing else of the tenant's is under way."""
        lock = self._locks.get(tenant)
        if lock is None:
            lock = self._locks[tenant] = asyncio.Lock()
        async with lock:
            yield

    async def work(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in one of the threads."""
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)

    async def run(self, tenant: str, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in one of the threads when it is the tenant's turn."""
        async with self.of(tenant):
            return await self.work(function, *arguments)

    @cached_property
    def _threads(self) -> CapacityLimiter:  # belongs to an event loop, and is made in it
        return CapacityLimiter(self._most)
