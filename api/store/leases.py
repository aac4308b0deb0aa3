"""What workers do with the store: claim a plan, report, finish; and what happens to plans whose worker has gone.

A claim is a lease with an attempt number. Every write names its attempt and is refused once the plan was given to
another: a worker that was presumed dead cannot spoil the work of its successor.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, update

from api.store.database import Database
from api.store.events import EVENT_COLUMNS, record_events
from api.store.models import plan_documents, plans
from api.store.outbox import tell_later
from api.store.queue import ANY, Wanted, next_plan
from api.store.tasks import Task, load_task

__all__ = ["Claim", "Lease", "Leases", "StaleAttemptError", "Task"]


class StaleAttemptError(Exception):
    """The plan was given to another attempt, or deleted: stop, and write nothing."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A plan that is ours to run, and the number of this attempt."""

    plan_id: str
    attempt: int
    tenant: str = ""


class Lease:
    """One attempt's view of its plan.

    Parameters
    ----------
    database : Database
    claim : Claim
    lease_s : float
        How long the plan stays ours without another sign of life.
    """

    def __init__(self, database: Database, claim: Claim, lease_s: float) -> None:
        self.database = database
        self.claim = claim
        self.lease_s = lease_s

    @property
    def _mine(self) -> ColumnElement[bool]:
        claim = self.claim
        return and_(plans.c.id == claim.plan_id, plans.c.attempt == claim.attempt, plans.c.status == "running")

    def begin(self) -> None:
        """Take up the attempt; refused the second time, when its first worker is dead or was thought so."""
        once = and_(self._mine, plans.c.begun < self.claim.attempt)
        values = {"begun": self.claim.attempt, "lease_until": time.time() + self.lease_s}
        with self.database.write() as connection:
            if not connection.execute(update(plans).where(once).values(values)).rowcount:
                raise StaleAttemptError

    def load(self) -> Task:
        """Return what there is to do."""
        with self.database.read() as connection:
            task = load_task(connection, self._mine)
        if task is None:
            raise StaleAttemptError
        return task

    def cancelled(self) -> bool:
        """Whether the plan is to stop."""
        with self.database.read() as connection:
            asked = connection.execute(select(plans.c.cancel_requested).where(self._mine)).scalar_one_or_none()
        if asked is None:
            raise StaleAttemptError
        return bool(asked)

    def renew(self) -> None:
        """Give a sign of life."""
        self._write({})

    def report(self, *, score: float | None, bound: float | None, elapsed_s: float, plan: str | None) -> None:
        """Tell the best score and bound so far, and the plan file if it is new.

        A plan that is worse than the stored one (of an earlier attempt that was not started from) is left out.
        """
        values = {"elapsed_s": elapsed_s, "bound": func.coalesce(bound, plans.c.bound)}
        if plan is not None and score is not None:
            better = or_(plans.c.score.is_(None), plans.c.score >= score)
            if self._write({**values, "score": score}, plan=plan, only=better):
                return
        self._write(values, visible=True)

    def finish(
        self,
        status: str,
        *,
        values: Mapping[str, Any],
        plan: str | None = None,
        summary: str | None = None,
        message: str | None = None,
    ) -> None:
        """End the attempt: `status` is ``succeeded``, ``failed`` or ``cancelled``, for good.

        Parameters
        ----------
        values : mapping
            Of the columns score, bound, elapsed_s, termination, error, warnings.
        plan, summary : str, optional
            Documents; those that are there stay if None.
        message : str, optional
            What the webhook is to be told of it.
        """
        ended = {**values, "status": status, "finished_at": time.time(), "lease_until": None}
        self._write(ended, plan=plan, summary=summary, message=message)

    def _write(
        self,
        values: Mapping[str, Any],
        *,
        plan: str | None = None,
        summary: str | None = None,
        message: str | None = None,
        only: ColumnElement[bool] | None = None,
        visible: bool | None = None,
    ) -> bool:
        now = time.time()
        changes: dict[str, Any] = {"lease_until": now + self.lease_s, **values}
        if values or visible:
            changes |= {"revision": plans.c.revision + 1, "updated_at": now}
        where = self._mine if only is None else and_(self._mine, only)
        documents = {name: text for name, text in (("plan", plan), ("summary", summary)) if text is not None}
        with self.database.write() as connection:
            changed = connection.execute(update(plans).where(where).values(changes).returning(*EVENT_COLUMNS)).all()
            if values or visible:
                record_events(connection, changed)
            if not changed:
                if only is None or not connection.execute(select(plans.c.seq).where(self._mine)).first():
                    raise StaleAttemptError
                return False
            if documents:
                mine = plan_documents.c.plan_id == self.claim.plan_id
                connection.execute(update(plan_documents).where(mine).values(documents))
            if message is not None:
                tell_later(connection, message)
        return True


class Leases:
    """The queue.

    Parameters
    ----------
    database : Database
    lease_s : float
        See `Lease`.
    server : str
        Name of the server that claims; after a crash it takes up what it had claimed.
    """

    def __init__(self, database: Database, lease_s: float, server: str = "") -> None:
        self.database = database
        self.lease_s = lease_s
        self.server = server

    def claim(self, wanted: Wanted = ANY) -> Claim | None:
        """Take the plan that is next, of those that are wanted; None if none waits. See `api.store.queue`."""
        waiting = select(plans.c.seq).where(plans.c.status == "queued").limit(1)
        with self.database.read() as connection:  # idle servers look often, and should not write
            if connection.execute(waiting).first() is None or next_plan(connection, wanted, time.time()) is None:
                return None
        now = time.time()
        values = {
            "status": "running",
            "attempt": plans.c.attempt + 1,
            "revision": plans.c.revision + 1,
            "lease_until": now + self.lease_s,
            "claimed_by": self.server,
            "started_at": func.coalesce(plans.c.started_at, now),
            "updated_at": now,
        }
        with self.database.write() as connection:
            seq = next_plan(connection, wanted, now)
            if seq is None:
                return None
            query = update(plans).where(plans.c.seq == seq, plans.c.status == "queued").values(values)
            rows = connection.execute(query.returning(*EVENT_COLUMNS, plans.c.tenant)).all()
            record_events(connection, rows)
        row = rows[0] if rows else None
        return None if row is None else Claim(plan_id=row.id, attempt=row.attempt, tenant=row.tenant)

    def lease(self, claim: Claim) -> Lease:
        """Return the lease of a claim."""
        return Lease(self.database, claim, self.lease_s)

    def hold(self, claim: Claim) -> bool:
        """Keep a plan whose attempt waits for a worker; False once one has begun it, or the attempt is over."""
        mine = and_(plans.c.id == claim.plan_id, plans.c.attempt == claim.attempt, plans.c.status == "running")
        waiting = and_(mine, plans.c.begun < claim.attempt)
        with self.database.write() as connection:
            query = update(plans).where(waiting).values(lease_until=time.time() + self.lease_s)
            return bool(connection.execute(query).rowcount)

    def give_back(self, claim: Claim) -> bool:
        """Queue a running plan again, its best plan kept; False if it is no longer this attempt's."""
        mine = and_(plans.c.id == claim.plan_id, plans.c.attempt == claim.attempt)
        return bool(self._requeue(mine))

    def demote(self, claim: Claim) -> bool:
        """Queue a plan again that was thought to be short, and is not; False if it is no longer this attempt's."""
        with self.database.write() as connection:
            connection.execute(update(plans).where(plans.c.id == claim.plan_id).values(expected_s=None))
        return self.give_back(claim)

    def give_back_mine(self) -> list[str]:
        """Queue the plans again that a server of this name had claimed before it died. Only before it claims any."""
        return self._requeue(plans.c.claimed_by == self.server)

    def give_back_expired(self) -> list[str]:
        """Queue the plans again whose worker has given no sign of life within its lease."""
        return self._requeue(plans.c.lease_until < time.time())

    def crashed(self, claim: Claim, max_crashes: int, error: Mapping[str, Any]) -> str | None:
        """Note that a worker died: queue the plan again, or, the last time, fail it. Returns its status."""
        mine = and_(plans.c.id == claim.plan_id, plans.c.attempt == claim.attempt, plans.c.status == "running")
        now = time.time()
        with self.database.write() as connection:
            query = update(plans).where(mine).values(crashes=plans.c.crashes + 1).returning(plans.c.crashes)
            crashes = connection.execute(query).scalar_one_or_none()
            if crashes is None:
                return None
            values: dict[str, Any] = {"status": "failed", "error": dict(error), "finished_at": now, "lease_until": None}
            if crashes < max_crashes:
                return self._requeue_in(connection, mine)[0][1]
            values |= {"revision": plans.c.revision + 1, "updated_at": now}
            failed = update(plans).where(mine).values(values).returning(*EVENT_COLUMNS)
            record_events(connection, connection.execute(failed).all())
            return "failed"

    def _requeue(self, where: ColumnElement[bool]) -> list[str]:
        with self.database.write() as connection:
            return [plan_id for plan_id, _ in self._requeue_in(connection, and_(where, plans.c.status == "running"))]

    @staticmethod
    def _requeue_in(connection: Any, where: ColumnElement[bool]) -> Sequence[tuple[str, str]]:
        """Queue plans again; those that were asked to stop are cancelled instead."""
        now = time.time()
        bump = {"revision": plans.c.revision + 1, "updated_at": now, "lease_until": None, "claimed_by": None}
        changed: list[tuple[str, str]] = []
        for asked, values in (
            (plans.c.cancel_requested, {"status": "cancelled", "finished_at": now}),
            (~plans.c.cancel_requested, {"status": "queued"}),
        ):
            query = update(plans).where(and_(where, asked)).values({**bump, **values})
            rows = connection.execute(query.returning(*EVENT_COLUMNS)).all()
            record_events(connection, rows)
            changed += [(row.id, row.status) for row in rows]
        return changed
