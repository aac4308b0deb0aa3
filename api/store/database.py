"""The connection to the database, SQLite or PostgreSQL: transactions, one writer at a time, migrations."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.pool import NullPool

from traces import InputError

__all__ = ["Database"]

BUSY_TIMEOUT_MS = 15_000
WRITER = 0x6D6F65706C616365  # advisory lock of PostgreSQL that stands for the right to write
NO_WRITE = "DELETE FROM alembic_version WHERE 0"  # BEGIN IMMEDIATE alone does not fail on a read-only connection
MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """Transactions on the database at `url`.

    Parameters
    ----------
    url : str
        SQLAlchemy URL, ``sqlite:///...`` or ``postgresql://...``.

    Attributes
    ----------
    cursor_key : bytes or None
        What masks the cursors of lists; it is kept once a list has asked for it.

    Raises
    ------
    InputError
        If the URL is of another kind, or the driver is missing.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = _engine(url)
        self._sqlite = self._engine.dialect.name == "sqlite"
        self.cursor_key: bytes | None = None
        if self._sqlite:
            event.listen(self._engine, "connect", _configure)
            event.listen(self._engine, "begin", _begin)
            event.listen(self._engine, "handle_error", _drop_read_only)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that sees one state of the database."""
        options = {} if self._sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self._engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that changes the database: all of it, or, after an exception, nothing.

        Writers take turns, with PostgreSQL as well: what a transaction has read stays true until it ends.
        """
        with self._writer() as connection:
            if not self._sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITER})
            yield connection
            connection.commit()

    def _writer(self) -> Connection:
        """Return a connection within a transaction that may write, on a new connection if the kept one is stale."""
        for last in (False, True):
            connection = self._engine.connect().execution_options(write=True)
            try:
                connection.begin()
                if self._sqlite:
                    connection.exec_driver_sql(NO_WRITE)
            except DBAPIError as error:
                connection.close()
                if last or not error.connection_invalidated:
                    raise
                self._engine.dispose()  # what is opened next must not share a read-only memory map with the others
            else:
                return connection
        raise AssertionError

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def upgrade(self, revision: str = "head") -> None:
        """Bring the schema up to date.

        Parameters
        ----------
        revision : str
            An earlier one than the latest, to test what comes after it.

        Raises
        ------
        InputError
            If the schema is newer than this program, or the file is no database.
        """
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        with self._readable(), self._migrating() as connection:
            known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
            current = self._revision(connection)
            if current is not None and current not in known:
                detail = f"The database has schema revision {current}, which this version does not know."
                raise InputError.of(
                    "schema_revision", "/data_dir", detail, "Start the version that made it, or a later one."
                )
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, revision)
            if self._sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
                raise RuntimeError(f"the migration broke references: {broken[:5]}")

    @contextmanager
    def _migrating(self) -> Iterator[Connection]:
        """Open a transaction that may alter tables.

        SQLite alters a table by copying and dropping it; with foreign keys on, dropping would delete what refers to it.
        They can't be turned off within a transaction, so this one has a connection of its own.
        """
        if not self._sqlite:
            with self.write() as connection:
                yield connection
            return
        engine = create_engine(self.url, poolclass=NullPool)
        event.listen(engine, "connect", _configure)
        event.listen(engine, "connect", lambda opened, _: opened.execute("PRAGMA foreign_keys=OFF"))
        event.listen(engine, "begin", _begin)
        with engine.connect().execution_options(write=True) as connection, connection.begin():
            yield connection

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


def _engine(url: str) -> Engine:
    kind, rest = url.partition("://")[::2]
    if kind in ("postgres", "postgresql"):
        url = f"postgresql+psycopg://{rest}"
    elif kind not in ("sqlite", "postgresql+psycopg"):
        detail = f"{kind!r} is no kind of database that the service knows."
        raise InputError.of("database_url", "/database_url", detail, "Give sqlite:///FILE or postgresql://HOST/NAME.")
    try:
        return create_engine(url, pool_size=8, max_overflow=48, pool_pre_ping=kind != "sqlite")
    except ModuleNotFoundError as error:
        detail = "PostgreSQL needs the driver psycopg."
        remedy = 'Install it: pip install "moe-placement[postgres]".'
        raise InputError.of("database_driver", "/database_url", detail, remedy) from error


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


def _drop_read_only(context: ExceptionContext) -> None:
    # A file that was opened while its disk was read-only stays so when the disk no longer is: only opening it again
    # helps, so every connection of that time is dropped.
    code = getattr(context.original_exception, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_READONLY:
        context.is_disconnect = True


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("write", False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:  # touches no file, so it can't fail: the driver's own call is a tenth of the time of one by the engine
        connection.connection.cursor().execute("BEGIN")
