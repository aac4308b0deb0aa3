"""Topologies that a tenant keeps under ids."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, select

from api.store.database import Database
from api.store.labels import relabel, tagged
from api.store.models import topologies
from api.store.rows import TopologyRow

__all__ = ["Topologies"]


class Topologies:
    """Topologies of one tenant; nothing of others can be read or changed through it.

    Parameters
    ----------
    database : Database
    tenant : str
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self.database = database
        self.tenant = tenant

    def add(self, content: Any, name: str | None, tags: Sequence[str]) -> TopologyRow:
        """Keep a topology."""
        values = {
            "tenant": self.tenant,
            "id": f"topo_{secrets.token_hex(16)}",
            "name": name,
            "tags": list(tags),
            "created_at": time.time(),
            "content": content,
        }
        with self.database.write() as connection:
            row = connection.execute(insert(topologies).values(values).returning(topologies)).one()
        return TopologyRow(**row._mapping)

    def get(self, topology_id: str) -> TopologyRow | None:
        """Return a topology."""
        mine = (topologies.c.tenant == self.tenant) & (topologies.c.id == topology_id)
        with self.database.read() as connection:
            row = connection.execute(select(topologies).where(mine)).one_or_none()
        return None if row is None else TopologyRow(**row._mapping)

    def page(self, limit: int, before: int | None, tags: Sequence[str] = ()) -> list[TopologyRow]:
        """Return up to `limit` topologies with all of `tags`, the newest first, older than `before`."""
        mine = (topologies.c.tenant == self.tenant) & tagged(topologies, tags)
        query = select(topologies).where(mine).order_by(topologies.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(topologies.c.seq < before)
        with self.database.read() as connection:
            return [TopologyRow(**row._mapping) for row in connection.execute(query)]

    def delete(self, topology_id: str) -> bool:
        """Delete a topology; False if there is none. Plans keep what it was."""
        mine = (topologies.c.tenant == self.tenant) & (topologies.c.id == topology_id)
        with self.database.write() as connection:
            return connection.execute(delete(topologies).where(mine)).rowcount > 0

    def label(self, topology_id: str, changes: Mapping[str, Any]) -> bool:
        """Change `name` or `tags` of a topology; False if there is none."""
        mine = (topologies.c.tenant == self.tenant) & (topologies.c.id == topology_id)
        return relabel(self.database, topologies, mine, changes)
