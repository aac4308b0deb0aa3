"""What happened to a plan: one event per revision, written in the transaction that made the change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from api.store.database import Database
from api.store.models import plan_events, plans
from placement.plan.termination import gap_of

__all__ = ["EVENT_COLUMNS", "PlanEvent", "events_after", "record_events"]

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


@dataclass(frozen=True, kw_only=True)
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


def events_after(database: Database, plan_id: str, revision: int, limit: int = 1000) -> list[PlanEvent]:
    """Return the events of a plan after a revision, in order."""
    columns = (plan_events.c.revision, plan_events.c.at, plan_events.c.data)
    mine = (plan_events.c.plan_id == plan_id) & (plan_events.c.revision > revision)
    query = select(*columns).where(mine).order_by(plan_events.c.revision).limit(limit)
    with database.read() as connection:
        return [PlanEvent(**row._mapping) for row in connection.execute(query)]


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
