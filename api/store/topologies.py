"""Topologies that a tenant keeps under ids."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, insert, select

from api.store.kept import Named
from api.store.models import topologies
from api.store.rows import ConflictError, TopologyRow

__all__ = ["Topologies"]


class Topologies(Named[TopologyRow]):
    """Topologies of one tenant; plans keep what a topology was when it is deleted."""

    table = topologies
    row = TopologyRow
    heavy = "content"

    def add(self, content: Any, name: str | None, tags: Sequence[str], max_topologies: int) -> TopologyRow:
        """Keep a topology. `ConflictError` (``quota-exceeded``) if the tenant has as many as it may."""
        values = {
            "tenant": self.tenant,
            "id": f"topo_{secrets.token_hex(16)}",
            "name": name,
            "tags": list(tags),
            "created_at": time.time(),
            "content": content,
        }
        mine = select(func.count()).where(topologies.c.tenant == self.tenant)
        with self.database.write() as connection:
            if (count := connection.execute(mine).scalar_one()) >= max_topologies:
                raise ConflictError("quota-exceeded", f"You have {count} topologies, of {max_topologies}.")
            row = connection.execute(insert(topologies).values(values).returning(topologies)).one()
        return TopologyRow(**row._mapping)
