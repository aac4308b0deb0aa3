"""What there is to do in an attempt: the request, and all that it names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, select

from api.store.models import plan_documents, plan_traces, plans, series_windows, traces

__all__ = ["NamedTrace", "Task", "load_task"]


@dataclass(frozen=True, kw_only=True)
class NamedTrace:
    """One of several traces: of a series' windows, with their times, or of a mixture's domains."""

    id: str
    name: str | None
    facts: dict[str, Any]
    time: float | None


@dataclass(frozen=True, kw_only=True)
class Task:
    """A request with all that belongs to it: the plan files to start from, of the request and of earlier attempts.

    `trace_name` and `facts` are those of its trace; `traces` are those of its series, or what else it names several of.
    """

    tenant: str
    kind: str
    request: dict[str, Any]
    start: dict[str, Any] | None
    best: dict[str, Any] | None
    trace_name: str | None
    facts: dict[str, Any]
    traces: tuple[NamedTrace, ...] = ()


def load_task(connection: Connection, mine: ColumnElement[bool]) -> Task | None:
    """Return the task of an attempt; None if it is over."""
    columns = (
        plans.c.tenant,
        plans.c.kind,
        plans.c.request,
        plan_documents.c.plan,
        plan_documents.c.start,
        traces.c.name,
        traces.c.facts,
        plans.c.id,
        plans.c.series_seq,
        plans.c.series_length,
    )
    trace = plans.c.trace_seq == traces.c.seq
    query = select(*columns).select_from(plans).join(plan_documents).outerjoin(traces, trace).where(mine)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.series_seq is None:
        several = _named(connection, row.id)
    else:
        several = _windows(connection, row.series_seq, row.series_length)
    return Task(
        tenant=row.tenant,
        kind=row.kind,
        request=row.request,
        start=None if row.start is None else json.loads(row.start),
        best=None if row.plan is None else json.loads(row.plan),
        trace_name=row.name,
        facts=row.facts or {},
        traces=several,
    )


def _windows(connection: Connection, series_seq: int, length: int) -> tuple[NamedTrace, ...]:
    """Return the windows that a series had; what came since is no part of it."""
    columns = (traces.c.id, traces.c.name, traces.c.facts, series_windows.c.time)
    mine = (series_windows.c.series_seq == series_seq) & (series_windows.c.number < length)
    query = select(*columns).select_from(series_windows).join(traces).where(mine)
    found = connection.execute(query.order_by(series_windows.c.number))
    return tuple(NamedTrace(**window._mapping) for window in found)


def _named(connection: Connection, plan_id: str) -> tuple[NamedTrace, ...]:
    """Return the traces that it was asked for with; those that were deleted since are left out."""
    query = select(traces.c.id, traces.c.name, traces.c.facts).select_from(plan_traces).join(traces)
    found = connection.execute(query.where(plan_traces.c.plan_id == plan_id).order_by(plan_traces.c.number))
    return tuple(NamedTrace(**row._mapping, time=None) for row in found)
