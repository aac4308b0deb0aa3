"""API keys as answers show them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.resources.answers import time_or_none
from api.store.rows import KeyRow

__all__ = ["KeyList", "KeyResource", "NewKey"]


class KeyResource(BaseModel):
    """An API key, without the key."""

    id: str
    name: str | None
    tenant: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")

    @classmethod
    def of(cls, row: KeyRow) -> KeyResource:
        """Show a row of the store."""
        return cls(**cls.fields_of(row))

    @classmethod
    def fields_of(cls, row: KeyRow) -> dict[str, Any]:
        """Return the fields for a row of the store."""
        times = {
            "created_at": row.created_at,
            "expires_at": row.expires_at,
            "revoked_at": row.revoked_at,
            "last_used_at": row.last_used_at,
        }
        known = {"id": row.id, "name": row.name, "tenant": row.tenant, "scopes": row.scopes}
        return known | {name: time_or_none(value) for name, value in times.items()}


class NewKey(KeyResource):
    """A key that was just made."""

    key: str = Field(description="The key itself. It is shown this once and kept nowhere.")


class KeyList(BaseModel):
    """All keys of the tenant."""

    items: list[KeyResource]
