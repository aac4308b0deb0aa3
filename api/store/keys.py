"""API keys: made once, shown once, kept as digests only."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Collection

from sqlalchemy import Row, insert, select, update

from api.store.database import Database
from api.store.models import api_keys
from api.store.rows import KeyRow

__all__ = ["PREFIX", "SCOPES", "Keys", "is_tenant"]

PREFIX = "mp_"  # so that scanners for leaked secrets can tell it
SCOPES = ("read", "write", "admin")
USE_S = 60.0  # how exactly the time of the last use is known
COLUMNS = [column for column in api_keys.columns if column.name not in ("digest", "seq")]


def is_tenant(name: str) -> bool:
    """Whether a name can be a tenant's: 1 to 80 printable characters, so that logs and lists show what it is."""
    return 1 <= len(name) <= 80 and name.isprintable()


class Keys:
    """The keys of all tenants.

    A key has 256 random bits, so a plain SHA-256 can't be searched backwards, and looking it up takes no time that
    tells anything.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(
        self, tenant: str, scopes: Collection[str], name: str | None = None, days: float | None = None
    ) -> tuple[str, KeyRow]:
        """Make a key. Returns it, which is the only time that it can be seen, and what is kept of it."""
        key, now = PREFIX + secrets.token_urlsafe(32), time.time()
        values = {
            "tenant": tenant,
            "id": f"key_{secrets.token_hex(8)}",
            "name": name,
            "digest": _digest(key),
            "scopes": [scope for scope in SCOPES if scope in scopes],
            "created_at": now,
            "expires_at": None if days is None else now + 86_400 * days,
        }
        with self.database.write() as connection:
            row = connection.execute(insert(api_keys).values(values).returning(*COLUMNS)).one()
        return key, _row(row)

    def find(self, key: str) -> KeyRow | None:
        """Return the key if it is valid now, and note its use."""
        now, digest = time.time(), _digest(key)
        with self.database.read() as connection:
            found = connection.execute(select(*COLUMNS).where(api_keys.c.digest == digest)).one_or_none()
        if found is None or not _row(found).valid_at(now):
            return None
        if found.last_used_at is None or now - found.last_used_at > USE_S:
            with self.database.write() as connection:
                connection.execute(update(api_keys).where(api_keys.c.digest == digest).values(last_used_at=now))
        return _row(found)

    def list(self, tenant: str | None = None) -> list[KeyRow]:
        """Return the keys of a tenant, or of all, in the order they were made."""
        query = select(*COLUMNS).order_by(api_keys.c.seq)
        if tenant is not None:
            query = query.where(api_keys.c.tenant == tenant)
        with self.database.read() as connection:
            return [_row(row) for row in connection.execute(query)]

    def revoke(self, key_id: str, tenant: str | None = None) -> KeyRow | None:
        """End a key's validity, for good; None if there is none (of the tenant)."""
        mine = api_keys.c.id == key_id
        if tenant is not None:
            mine &= api_keys.c.tenant == tenant
        with self.database.write() as connection:
            change = update(api_keys).where(mine, api_keys.c.revoked_at.is_(None)).values(revoked_at=time.time())
            connection.execute(change)
            row = connection.execute(select(*COLUMNS).where(mine)).one_or_none()
        return None if row is None else _row(row)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _row(row: Row[tuple[object, ...]]) -> KeyRow:
    return KeyRow(**row._mapping)
