"""Names and tags: rows that have all of some tags, and changes of what a client calls a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table, Text, cast, select, update

from api.store.database import Database

__all__ = ["relabel", "tagged"]


def tagged(table: Table, tags: Sequence[str]) -> ColumnElement[bool]:
    """Whether a row has all tags. They hold no quotes, so a tag's JSON text can't be a part of another's."""
    text = cast(table.c.tags, Text)
    found: ColumnElement[bool] = table.c.seq > 0
    for tag in tags:
        found &= text.contains(f'"{tag}"', autoescape=True)
    return found


def relabel(database: Database, table: Table, mine: ColumnElement[bool], changes: Mapping[str, Any]) -> bool:
    """Change `name` or `tags` of the row that `mine` selects; False if there is none."""
    if not changes:
        with database.read() as connection:
            return connection.execute(select(table.c.seq).where(mine)).first() is not None
    with database.write() as connection:
        return connection.execute(update(table).where(mine).values(dict(changes))).rowcount > 0
