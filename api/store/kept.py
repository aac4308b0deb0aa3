"""What a tenant keeps under ids, in a table of its own: found, listed, named, forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, delete, select

from api.store.database import Database
from api.store.labels import relabel, tagged
from api.store.pages import page_of, page_query

__all__ = ["Kept", "Named"]

Row = TypeVar("Row")


class Kept(Generic[Row]):
    """Rows of one tenant; nothing of others can be read or changed through it.

    A kind of row has a class of its own, which says how one is added, and names `table` and `row`.

    Parameters
    ----------
    database : Database
    tenant : str
    """

    table: ClassVar[Table]
    row: ClassVar[type[Any]]

    def __init__(self, database: Database, tenant: str) -> None:
        self.database = database
        self.tenant = tenant

    def get(self, row_id: str) -> Row | None:
        """Return a row; None if there is none."""
        with self.database.read() as connection:
            return self._row(connection, row_id)

    def delete(self, row_id: str) -> bool:
        """Delete a row; False if there is none."""
        with self.database.write() as connection:
            return connection.execute(delete(self.table).where(self._mine(row_id))).rowcount > 0

    def _mine(self, row_id: str) -> ColumnElement[bool]:
        return (self.table.c.tenant == self.tenant) & (self.table.c.id == row_id)

    def _row(self, connection: Connection, row_id: str) -> Row | None:
        found = connection.execute(select(self.table).where(self._mine(row_id))).one_or_none()
        return None if found is None else self.row(**found._mapping)


class Named(Kept[Row]):
    """Rows with a name and tags, which can be listed and renamed; `heavy` is the column that may be large."""

    heavy: ClassVar[str | None] = None

    def page(self, limit: int, before: int | None, tags: Sequence[str] = ()) -> tuple[list[Row], bool]:
        """Return up to `limit` rows with all of `tags`, the newest first, older than `before`; and if there is more."""
        own = (self.table.c.tenant == self.tenant) & tagged(self.table, tags)
        query = select(self.table).where(own)
        heavy = None if self.heavy is None else self.table.c[self.heavy]
        if before is not None:
            query = query.where(self.table.c.seq < before)
        with self.database.read() as connection:
            rows, more = page_of(connection, page_query(query, self.table.c.seq, heavy, limit), limit)
            return [self.row(**row) for row in rows], more

    def label(self, row_id: str, changes: Mapping[str, Any]) -> bool:
        """Change `name` or `tags` of a row; False if there is none."""
        return relabel(self.database, self.table, self._mine(row_id), changes)
