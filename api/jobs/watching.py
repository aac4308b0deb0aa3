"""News of plans for those who watch: one look at the database per plan, however many watch it."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.store.database import Database
from api.store.events import PlanEvent, news_after

__all__ = ["Feed", "Watching"]

POLL_S = 0.2
log = structlog.get_logger(__name__)


class Feed:
    """What happened to a plan, from its first change on.

    Attributes
    ----------
    over : bool
        Whether nothing will come any more.
    deleted : bool
        Whether that is because the plan was deleted.
    """

    def __init__(self) -> None:
        self.over = self.deleted = False
        self._events: list[PlanEvent] = []
        self._changed = asyncio.Event()
        self.watchers = 0

    def after(self, revision: int) -> Sequence[PlanEvent]:
        """Return the changes after a revision."""
        return self._events[bisect_right(self._events, revision, key=lambda event: event.revision) :]

    async def news(self, timeout_s: float) -> None:
        """Wait until there is something new, at most so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)

    async def follow(self, database: Database, plan_id: str) -> None:
        """Look for news until the plan is over."""
        while not self.over:
            last = self._events[-1].revision if self._events else 0
            try:
                news = await run_in_threadpool(news_after, database, plan_id, last)
            except SQLAlchemyError:
                log.warning("watching.failed", plan=plan_id)
                await asyncio.sleep(5 * POLL_S)
                continue
            self._events += news.events
            self.deleted, self.over = news.deleted, news.over
            if news.events or self.over:
                self._changed.set()
                self._changed = asyncio.Event()  # those who wait hold the old one
            if not news.more:
                await asyncio.sleep(POLL_S)


class Watching:
    """The feeds of the plans that are watched; for one event loop.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._feeds: dict[str, tuple[Feed, asyncio.Task[Any]]] = {}

    @asynccontextmanager
    async def of(self, plan_id: str) -> AsyncIterator[Feed]:
        """Watch a plan until the block ends."""
        if plan_id not in self._feeds:
            feed = Feed()
            self._feeds[plan_id] = feed, asyncio.create_task(feed.follow(self._database, plan_id))
        feed, task = self._feeds[plan_id]
        feed.watchers += 1
        try:
            yield feed
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                task.cancel()
                self._feeds.pop(plan_id, None)
