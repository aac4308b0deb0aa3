"""What the operator's webhook is to be told: kept with what it tells of, until it was, or was tried often enough."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from api.store.database import Database
from api.store.models import webhooks

__all__ = ["Outbox", "Told", "tell_later"]


@dataclass(frozen=True, kw_only=True)
class Told:
    """A message; `attempts` is how often it was sent in vain."""

    seq: int
    id: str
    body: str
    attempts: int
    due_at: float


def tell_later(connection: Connection, body: str) -> None:
    """Keep a message, in the transaction of what it tells of."""
    values = {"id": f"msg_{secrets.token_hex(16)}", "body": body, "attempts": 0, "due_at": time.time()}
    connection.execute(insert(webhooks).values(values))


class Outbox:
    """The messages that wait, of all tenants.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, now: float, limit: int) -> list[Told]:
        """Return messages to send, the oldest first."""
        query = select(webhooks).where(webhooks.c.due_at <= now).order_by(webhooks.c.seq).limit(limit)
        with self._database.read() as connection:
            return [Told(**row._mapping) for row in connection.execute(query)]

    def postpone(self, message: Told, due_at: float) -> None:
        """Send a message again later."""
        mine = update(webhooks).where(webhooks.c.seq == message.seq)
        with self._database.write() as connection:
            connection.execute(mine.values(attempts=message.attempts + 1, due_at=due_at))

    def drop(self, message: Told) -> None:
        """Forget a message."""
        with self._database.write() as connection:
            connection.execute(delete(webhooks).where(webhooks.c.seq == message.seq))
