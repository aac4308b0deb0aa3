"""What happened to a plan: one event per revision, written in the transaction that made the change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from api.store.database import Database
from api.store.models import plan_events, plans
from api.store.rows import ACTIVE
from placement.plan.termination import gap_of

__all__ = ["EVENT_COLUMNS", "News", "PlanEvent", "news_after", "record_events"]

EVENT_COLUMNS = (
    plans.c.id,
    plans.c.revision,
    plans.c.status,
    plans.c.cancel_requested,
    plans.c.attempt,
    plans.c.score,
    plans.c.bound,
    plans.c.elapsed_s,
)

MOST = 1000  # events at once


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanEvent:
    """One change of a plan; `data` is the state after it."""

    revision: int
    at: float
    data: dict[str, Any]


def record_events(connection: Connection, rows: Sequence[Row[Any]]) -> None:
    """Keep the state that plans have after a change; `rows` are those of an update that returned `EVENT_COLUMNS`."""
    now = time.time()
    events = [{"plan_id": row.id, "revision": row.revision, "at": now, "data": _data(row)} for row in rows]
    if events:
        connection.execute(insert(plan_events), events)


@dataclass(frozen=True, kw_only=True)
class News:
    """What happened to a plan since a revision.

    Attributes
    ----------
    events : list of PlanEvent
        In order.
    more : bool
        Whether there is more already: ask again.
    over : bool
        Whether nothing will come after these.
    deleted : bool
        Whether there is no such plan any more.
    """

    events: list[PlanEvent]
    more: bool
    over: bool
    deleted: bool


def news_after(database: Database, plan_id: str, revision: int) -> News:
    """Return what happened to a plan after a revision."""
    columns = (plan_events.c.revision, plan_events.c.at, plan_events.c.data)
    mine = (plan_events.c.plan_id == plan_id) & (plan_events.c.revision > revision)
    query = select(*columns).where(mine).order_by(plan_events.c.revision).limit(MOST)
    with database.read() as connection:
        events = [PlanEvent(**row._mapping) for row in connection.execute(query)]
        state = connection.execute(select(plans.c.status, plans.c.revision).where(plans.c.id == plan_id)).one_or_none()
    more = len(events) == MOST
    last = events[-1].revision if events else revision
    over = state is None or (state.status not in ACTIVE and state.revision <= last)
    return News(events=events, more=more, over=over and not more, deleted=state is None)


def _data(row: Row[Any]) -> dict[str, Any]:
    return {
        "status": row.status,
        "cancel_requested": row.cancel_requested,
        "attempt": row.attempt,
        "score": row.score,
        "bound": row.bound,
        "gap": gap_of(row.score, row.bound),
        "elapsed_s": row.elapsed_s,
    }
