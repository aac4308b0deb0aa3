"""Topologies that a tenant keeps under ids."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert

from api.store.kept import Named
from api.store.models import topologies
from api.store.rows import TopologyRow

__all__ = ["Topologies"]


class Topologies(Named[TopologyRow]):
    """Topologies of one tenant; plans keep what a topology was when it is deleted."""

    table = topologies
    row = TopologyRow
    heavy = "content"

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
