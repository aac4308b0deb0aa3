"""Pages of lists: so many rows, or as many as are not too large together; and where a page begins, for clients.

The order of creation is counted over all tenants, so its numbers would tell one how much the others do. A cursor hides
its number, and is one tenant's only: it is masked by a keyed digest of itself, which it begins with (RFC 5297's idea).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, Connection, Select, Text, cast, func, select

from api.store.database import Database
from api.store.models import service

__all__ = ["PAGE_BYTES", "Cursors", "page_of", "page_query"]

PAGE_BYTES = 4 << 20  # of what rows hold; one row alone may have more
SIZE = "bytes_held"  # beside the columns of a row
HALF = 8


def page_query(query: Select[Any], seq: Column[int], heavy: Column[Any] | None, limit: int) -> Select[Any]:
    """Return what `page_of` asks for a page, which is made once where the same page is asked for again and again.

    Parameters
    ----------
    query : Select
        All rows from where the page begins, in any order.
    seq : Column
        Order of creation; the newest come first.
    heavy : Column or None
        JSON that may be large, which the page has at most `PAGE_BYTES` of, or one row.
    limit : int
        Rows.
    """
    size = func.length("") if heavy is None else func.length(cast(heavy, Text))
    return query.add_columns(size.label(SIZE)).order_by(seq.desc()).limit(limit + 1)


def page_of(connection: Connection, query: Select[Any], limit: int) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows of a page by the names of their columns, and whether there is more.

    Parameters
    ----------
    query : Select
        Of `page_query`.
    limit : int
        Rows.
    """
    kept: list[dict[str, Any]] = []
    total = 0
    # Rows come one by one, so that those beyond the page are never held together; SQLite's do so by themselves.
    stream = {"stream_results": True, "max_row_buffer": 1} if connection.dialect.supports_server_side_cursors else {}
    with connection.execute(query, execution_options=stream) as found:
        for row in found.mappings():
            content = dict(row)
            total += content.pop(SIZE) or 0
            if len(kept) == limit or (kept and total > PAGE_BYTES):
                return kept, True
            kept.append(content)
    return kept, False


class Cursors:
    """Where pages begin, as a tenant's clients are told.

    Parameters
    ----------
    database : Database
    tenant : str
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def after(self, seq: int) -> str:
        """Return the cursor of the page after a row."""
        return _cursor(self._key(), self._tenant, seq)

    def position(self, cursor: str) -> int | None:
        """Return the number of the row; None if the cursor is not one of the tenant's."""
        try:
            content = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError):
            return None
        key, tag = self._key(), content[:HALF]
        number = _masked(content[HALF:], key, tag)
        if len(content) != 2 * HALF or not hmac.compare_digest(_digest(key, self._tenant, number), tag):
            return None
        return int.from_bytes(number, "big")

    def _key(self) -> bytes:
        if self._database.cursor_key is not None:
            return self._database.cursor_key
        with self._database.read() as connection:  # what only the service knows, and keeps
            identity = connection.execute(select(service.c.identity)).scalar_one_or_none()
        key = hashlib.sha256(f"cursors of {identity}".encode()).digest()
        if identity is not None:  # until it is settled, there is no secret to keep
            self._database.cursor_key = key
        return key


@lru_cache(maxsize=1024)  # the first pages of lists are asked for again and again
def _cursor(key: bytes, tenant: str, seq: int) -> str:
    number = seq.to_bytes(HALF, "big")
    tag = _digest(key, tenant, number)
    return base64.urlsafe_b64encode(tag + _masked(number, key, tag)).decode().rstrip("=")


def _digest(key: bytes, tenant: str, number: bytes) -> bytes:
    return hmac.digest(key, b"row" + number + tenant.encode(), "sha256")[:HALF]


def _masked(number: bytes, key: bytes, tag: bytes) -> bytes:
    mask = hmac.digest(key, b"mask" + tag, "sha256")
    return bytes(one ^ other for one, other in zip(number, mask, strict=False))
