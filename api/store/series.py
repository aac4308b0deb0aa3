"""Series of one tenant: stored traces in the order of time, with the loads of each, so that none is read again."""

from __future__ import annotations

import secrets
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, delete, func, insert, select, update

from api.store.kept import Named
from api.store.models import plans, series, series_windows, traces
from api.store.rows import ACTIVE, ConflictError, SeriesRow, SeriesWindowRow, TraceRow

__all__ = ["SeriesStore", "packed", "unpacked"]

Floats = npt.NDArray[np.float64]


class SeriesStore(Named[SeriesRow]):
    """Series of one tenant; nothing of others can be read or changed through it."""

    table = series
    row = SeriesRow

    def add(self, name: str | None, tags: Sequence[str], alpha: float, max_series: int) -> SeriesRow:
        """Begin a series without windows. `ConflictError` (``quota-exceeded``) if the tenant has as many as it may."""
        now = time.time()
        values = {
            "tenant": self.tenant,
            "id": f"series_{secrets.token_hex(16)}",
            "name": name,
            "tags": list(tags),
            "alpha": alpha,
            "created_at": now,
            "updated_at": now,
        }
        mine = select(func.count()).where(series.c.tenant == self.tenant)
        with self.database.write() as connection:
            if (count := connection.execute(mine).scalar_one()) >= max_series:
                raise ConflictError("quota-exceeded", f"You have {count} series, of {max_series}.")
            row = connection.execute(insert(series).values(values).returning(series)).one()
        return SeriesRow(**row._mapping)

    def windows(self, row: SeriesRow, count: int | None = None) -> list[SeriesWindowRow]:
        """Return the windows in order of time, or the first so many."""
        columns = (
            series_windows.c.number,
            traces.c.id.label("trace_id"),
            traces.c.name,
            series_windows.c.time,
            series_windows.c.added_at,
            series_windows.c.drift,
        )
        query = select(*columns).join(traces).where(series_windows.c.series_seq == row.seq)
        if count is not None:
            query = query.where(series_windows.c.number < count)
        with self.database.read() as connection:
            found = connection.execute(query.order_by(series_windows.c.number))
            return [SeriesWindowRow(**window._mapping) for window in found]

    def traces(self, row: SeriesRow, count: int) -> list[TraceRow]:
        """Return the traces of the first windows."""
        query = select(traces).join(series_windows).where(series_windows.c.series_seq == row.seq)
        query = query.where(series_windows.c.number < count).order_by(series_windows.c.number)
        with self.database.read() as connection:
            return [TraceRow(**found._mapping) for found in connection.execute(query)]

    def packed_loads(self, row: SeriesRow, first: int = 0) -> list[bytes]:
        """Return the loads of the windows from a number on, as they are stored."""
        mine = (series_windows.c.series_seq == row.seq) & (series_windows.c.number >= first)
        query = select(series_windows.c.load).where(mine).order_by(series_windows.c.number)
        with self.database.read() as connection:
            return list(connection.execute(query).scalars())

    def append(
        self,
        row: SeriesRow,
        trace: TraceRow,
        number: int,
        *,
        at: float | None,
        axes: Mapping[str, Any],
        load: bytes,
        drift: Mapping[str, Any] | None,
    ) -> SeriesRow:
        """Add a window.

        Parameters
        ----------
        row : SeriesRow
        trace : TraceRow
        number : int
            Windows that the series had when the drift was told.
        at : float, optional
            When it was recorded.
        axes : mapping
            What the series is of from now on, if it had no window.
        load : bytes
            See `packed`.
        drift : mapping, optional

        Raises
        ------
        ConflictError
            ``series-changed`` if another window came meanwhile; ``not-found`` if series or trace has gone.
        """
        now = time.time()
        with self.database.write() as connection:
            if self._row(connection, row.id) is None:
                raise ConflictError("not-found", "The series was deleted meanwhile.")
            if connection.execute(select(traces.c.seq).where(traces.c.seq == trace.seq)).first() is None:
                raise ConflictError("not-found", "The trace was deleted meanwhile.")
            if self._length(connection, row.seq) != number:
                raise ConflictError("series-changed", "Another window came meanwhile.")
            values = {"series_seq": row.seq, "number": number, "trace_seq": trace.seq, "time": at, "added_at": now}
            connection.execute(insert(series_windows).values(**values, load=load, drift=drift))
            changes = {"updated_at": now, "axes": dict(axes)}
            query = update(series).where(series.c.seq == row.seq).values(changes).returning(series)
            return SeriesRow(**connection.execute(query).one()._mapping)

    def lengths(self, rows: Sequence[SeriesRow]) -> dict[int, int]:
        """Return how many windows series have, by their `seq`."""
        chosen = series_windows.c.series_seq.in_([row.seq for row in rows])
        query = select(series_windows.c.series_seq, func.count()).where(chosen).group_by(series_windows.c.series_seq)
        with self.database.read() as connection:
            found = {row[0]: row[1] for row in connection.execute(query)}
        return {row.seq: found.get(row.seq, 0) for row in rows}

    def latest(self, limit: int) -> list[tuple[SeriesRow, int, Mapping[str, Any] | None]]:
        """Return the series that got a window last, with the number of their windows and the latest drift."""
        mine = select(series).where(series.c.tenant == self.tenant, series.c.axes.is_not(None))
        with self.database.read() as connection:
            rows = connection.execute(mine.order_by(series.c.updated_at.desc()).limit(limit)).all()
            found = []
            for row in rows:
                last = select(series_windows.c.number, series_windows.c.drift)
                last = last.where(series_windows.c.series_seq == row.seq).order_by(series_windows.c.number.desc())
                number, drift = connection.execute(last.limit(1)).one()
                found.append((SeriesRow(**row._mapping), number + 1, drift))
            return found

    def delete(self, row_id: str) -> bool:
        """Delete a series, but not its traces; False if there is none. `ConflictError` if a simulation needs it."""
        with self.database.write() as connection:
            row = self._row(connection, row_id)
            if row is None:
                return False
            using = select(func.count()).where(plans.c.series_seq == row.seq, plans.c.status.in_(ACTIVE))
            if count := connection.execute(using).scalar_one():
                raise ConflictError("series-in-use", f"{count} queued or running simulation(s) need the series.")
            connection.execute(delete(series).where(series.c.seq == row.seq))
            return True

    def _length(self, connection: Connection, seq: int) -> int:
        count = select(func.count()).where(series_windows.c.series_seq == seq)
        return int(connection.execute(count).scalar_one())


def packed(load: Floats) -> bytes:
    """Return loads, (L, E), as they are stored."""
    return zlib.compress(np.ascontiguousarray(load, "<f8").tobytes(), 6)


def unpacked(content: bytes, shape: tuple[int, int]) -> Floats:
    """Return stored loads."""
    return np.frombuffer(zlib.decompress(content), "<f8").reshape(shape).astype(np.float64)
