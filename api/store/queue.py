"""Whose plan is next: tenants take turns, by the time that they have used; short plans do not wait for long ones."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select

from api.store.models import plans

__all__ = ["ANY", "LONG_S", "SHORT_S", "Wanted", "next_plan"]

SHORT_S = 2.0  # a plan that is expected to take no longer is short
LONG_S = 30.0  # one that is expected to take longer is long
WINDOW_S = 600.0  # for how long what a tenant has used counts


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a lane takes.

    Attributes
    ----------
    short : bool
        Only plans that are expected to be short.
    most_long : int or None
        A tenant that so many plans run for, none of them short, gets no long one; None for no limit.
    barred : frozenset of str
        Tenants that get nothing here.
    """

    short: bool = False
    most_long: int | None = None
    barred: frozenset[str] = frozenset()


ANY = Wanted()


def next_plan(connection: Connection, wanted: Wanted, now: float) -> int | None:
    """Return the `seq` of the plan to run next; None if none waits that is wanted.

    The tenant with the fewest running plans comes first, then the one that has used the least time of late, then the
    one that has waited longest; of one tenant, the plan that has waited longest.
    """
    expected = func.coalesce(plans.c.expected_s, LONG_S + 1)
    first = _first_of_tenants(connection, expected <= SHORT_S if wanted.short else expected >= 0, wanted.barred)
    if not first:
        return None
    running, used = _running(connection), _used(connection, now)
    if wanted.most_long is not None:
        full = [tenant for tenant, count in running.items() if count[1] >= wanted.most_long]
        not_long = _first_of_tenants(connection, and_(expected <= LONG_S, plans.c.tenant.in_(full)), wanted.barred)
        first = {tenant: seq for tenant, seq in first.items() if tenant not in full} | not_long
    order = [(running.get(tenant, (0, 0))[0], used.get(tenant, 0.0), seq) for tenant, seq in first.items()]
    return min(order)[2] if order else None


def _first_of_tenants(connection: Connection, which: ColumnElement[bool], barred: frozenset[str]) -> dict[str, int]:
    waiting = and_(plans.c.status == "queued", which, plans.c.tenant.not_in(barred))
    query = select(plans.c.tenant, func.min(plans.c.seq)).where(waiting).group_by(plans.c.tenant)
    return {row[0]: row[1] for row in connection.execute(query)}


def _running(connection: Connection) -> dict[str, tuple[int, int]]:
    """Return how many plans run for each tenant, and how many of them are not short."""
    other = case((or_(plans.c.expected_s.is_(None), plans.c.expected_s > SHORT_S), 1), else_=0)
    query = select(plans.c.tenant, func.count(), func.sum(other)).where(plans.c.status == "running")
    return {row[0]: (row[1], int(row[2])) for row in connection.execute(query.group_by(plans.c.tenant))}


def _used(connection: Connection, now: float) -> dict[str, float]:
    """Return the seconds that plans of each tenant have taken of late, by those that have finished."""
    took = func.sum(plans.c.finished_at - plans.c.started_at)
    lately = and_(plans.c.finished_at > now - WINDOW_S, plans.c.started_at.is_not(None))
    query = select(plans.c.tenant, took).where(lately).group_by(plans.c.tenant)
    return {row[0]: float(row[1] or 0.0) for row in connection.execute(query)}
