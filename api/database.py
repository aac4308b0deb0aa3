"""The connection to the database: transactions, SQLite's settings, migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError

from traces import InputError

__all__ = ["Database"]

BUSY_TIMEOUT_MS = 15_000
MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """Transactions on the database at `url`.

    Parameters
    ----------
    url : str
        SQLAlchemy URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = create_engine(url, pool_size=8, max_overflow=48)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _configure)
            event.listen(self._engine, "begin", _begin)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that sees one state of the database."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that changes the database: all of it, or, after an exception, nothing."""
        with self._engine.connect().execution_options(write=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def upgrade(self) -> None:
        """Bring the schema up to date.

        Raises
        ------
        InputError
            If the schema is newer than this program, or the file is no database.
        """
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        with self._readable(), self.write() as connection:
            known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
            current = self._revision(connection)
            if current is not None and current not in known:
                detail = f"The database has schema revision {current}, which this version does not know."
                raise InputError.of(
                    "schema_revision", "/data_dir", detail, "Start the version that made it, or a later one."
                )
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            detail = f"The database can't be used: {error.orig}."
            raise InputError.of(
                "database", "/data_dir", detail, "Check the file service.db, or restore a backup."
            ) from error

    @staticmethod
    def _revision(connection: Connection) -> str | None:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _configure(connection: Any, record: Any) -> None:
    # The driver would begin transactions by itself, and deferred ones: a read that turns into a write then fails at
    # once instead of waiting its turn.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",  # what was answered with 2xx survives a power cut
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
