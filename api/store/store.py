"""The store across all tenants: what start-up, upkeep and metrics read and delete."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select

from api.store.database import Database
from api.store.models import idempotency_keys, plan_traces, plans, series, series_windows, traces, uploads
from api.store.rows import ACTIVE, Totals
from api.store.tenant import TenantStore

__all__ = ["Store"]


class Store:
    """What the service knows of all tenants together; what one of them sees is `of` it.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def of(self, tenant: str) -> TenantStore:
        """Return the store as a tenant sees it."""
        return TenantStore(self.database, tenant)

    def trace_ids(self) -> set[str]:
        """Return the ids of all traces."""
        with self.database.read() as connection:
            return set(connection.execute(select(traces.c.id)).scalars())

    def trace_is_known(self, trace_id: str) -> bool:
        """Whether any tenant has the trace."""
        with self.database.read() as connection:
            return connection.execute(select(traces.c.seq).where(traces.c.id == trace_id).limit(1)).first() is not None

    def expired_uploads(self, now: float) -> set[str]:
        """Return the ids of uploads in parts that have expired."""
        with self.database.read() as connection:
            return set(connection.execute(select(uploads.c.id).where(uploads.c.expires_at < now)).scalars())

    def drop_plans(self, before: float) -> int:
        """Delete plans and fronts that were finished before a time; return how many."""
        old = plans.c.status.not_in(ACTIVE) & (plans.c.finished_at < before)
        with self.database.write() as connection:
            return connection.execute(delete(plans).where(old)).rowcount

    def drop_series(self, before: float) -> int:
        """Delete series that got no window since a time, and that no simulation needs; return how many."""
        used = select(plans.c.seq).where(plans.c.series_seq == series.c.seq, plans.c.status.in_(ACTIVE)).exists()
        with self.database.write() as connection:
            return connection.execute(delete(series).where(series.c.updated_at < before, ~used)).rowcount

    def drop_traces(self, before: float) -> list[str]:
        """Delete traces that came before a time and have neither plans nor series; return their ids."""
        planned = select(plans.c.seq).where(plans.c.trace_seq == traces.c.seq).exists()
        named = select(plan_traces.c.number).where(plan_traces.c.trace_seq == traces.c.seq).exists()
        seen = select(series_windows.c.number).where(series_windows.c.trace_seq == traces.c.seq).exists()
        used = planned | named | seen
        with self.database.write() as connection:
            found = connection.execute(
                select(traces.c.seq, traces.c.id).where(traces.c.created_at < before, ~used)
            ).all()
            if found:
                connection.execute(delete(traces).where(traces.c.seq.in_([row.seq for row in found])))
            return [row.id for row in found]

    def drop_uploads(self, expired_at: float) -> None:
        """Forget uploads in parts that have expired."""
        with self.database.write() as connection:
            connection.execute(delete(uploads).where(uploads.c.expires_at < expired_at))

    def drop_idempotency_keys(self, before: float) -> None:
        """Forget keys of before a time."""
        with self.database.write() as connection:
            connection.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at < before))

    def upload_ids(self) -> set[str]:
        """Return the ids of all uploads in parts."""
        with self.database.read() as connection:
            return set(connection.execute(select(uploads.c.id)).scalars())

    def counts(self) -> dict[str, int]:
        """Return the number of plans per status."""
        with self.database.read() as connection:
            return _counts(connection)

    def totals(self) -> Totals:
        """Return what the service has, of all tenants together."""
        since = select(func.min(plans.c.updated_at)).where(plans.c.status == "queued")
        kept = select(traces.c.id, func.max(traces.c.bytes).label("bytes")).group_by(traces.c.id).subquery()
        with self.database.read() as connection:
            count, size = connection.execute(select(func.count(), func.sum(kept.c.bytes))).one()
            return Totals(
                plans=_counts(connection),
                waiting_since=connection.execute(since).scalar_one(),
                blobs=count,
                blob_bytes=int(size or 0),
                open_uploads=connection.execute(select(func.count()).select_from(uploads)).scalar_one(),
            )


def _counts(connection: Connection) -> dict[str, int]:
    query = select(plans.c.status, func.count()).group_by(plans.c.status)
    return {row.status: row[1] for row in connection.execute(query)}
