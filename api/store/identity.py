"""What a service is known by, kept in the database and beside its traces: so that neither is used with another's.

A server on the wrong folder would find no trace of the database, fail its plans for good, and remove the files that the
database does not know.
"""

from __future__ import annotations

import itertools
import secrets

from sqlalchemy import insert, select

from api.store.blobs import Blobs
from api.store.database import Database
from api.store.models import service, traces
from traces import InputError

__all__ = ["settle_identity"]

LOOKS = 50  # at most so many traces are looked for


def settle_identity(database: Database, blobs: Blobs) -> str:
    """Return the identity that a database and its traces have in common; a new pair gets one.

    Raises
    ------
    InputError
        ``other_store`` if they do not belong together.
    """
    here, kept = blobs.identity(), _kept(database)
    if here is not None and here == kept:
        return here
    if here is not None and kept is not None:
        raise _other(f"The traces here are those of service {here}, the database is that of service {kept}.", kept)
    names = _traces(database)
    if names and not any(map(blobs.exists, names)):
        raise _other(f"The database has traces, and none of them is here; it is that of service {kept}.", kept)
    if not names and not blobs.empty():
        raise _other("There are traces here, and the database has none.", kept)
    identity = here or kept or secrets.token_hex(16)
    if here is None:  # first here: a crash between the two leaves what the next start completes
        blobs.identify(identity)
    settled = _settled(database, identity)
    if settled != identity:  # another server was quicker
        if here is None:
            blobs.forget_identity()
        raise _other(f"The database has become that of service {settled} just now.", settled)
    return identity


def _other(detail: str, kept: str | None) -> InputError:
    remedy = "Give the data folder (or object store) and the database that belong together"
    if kept is not None:
        remedy += f"; if these do, write {kept} to the file blobs/identity; see docs/operations.md"
    return InputError.of("other_store", "/data_dir", detail, f"{remedy}.")


def _kept(database: Database) -> str | None:
    with database.read() as connection:
        return connection.execute(select(service.c.identity)).scalar_one_or_none()


def _traces(database: Database) -> list[str]:
    with database.read() as connection:
        found = connection.execute(select(traces.c.id).order_by(traces.c.seq.desc()).limit(LOOKS)).scalars()
        return list(itertools.islice(found, LOOKS))


def _settled(database: Database, identity: str) -> str:
    with database.write() as connection:
        kept = connection.execute(select(service.c.identity)).scalar_one_or_none()
        if kept is None:
            connection.execute(insert(service).values(id=1, identity=identity, seen_at=None, hold_s=0.0))
            kept = identity
        return kept
