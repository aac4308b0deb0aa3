"""Backup of a service's data folder, as one tar file: the database as it is at one moment, and all blobs.

A backup may be taken while the service runs. The database is copied first (SQLite's online backup): what it names is
on the disk by then, since a trace's file is kept before its row, and files are only removed after their row. A file
that is missing, or is not what its name says, is left out and reported. `api.store.restore` reads what is written here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from traces import InputError
from traces.support.atomic import atomic_write, check_writable

__all__ = [
    "BLOBS",
    "CHUNK_BYTES",
    "DATABASE",
    "FORMAT",
    "MANIFEST",
    "VERSION",
    "Kept",
    "backup",
    "contents",
    "integrity",
    "no_backup",
    "summary",
    "told",
]

FORMAT = "moe-placement backup"
VERSION = 1
DATABASE = "service.db"
MANIFEST = "manifest.json"
BLOBS = "blobs/sha256/"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a backup holds.

    Attributes
    ----------
    traces, plans, uploads : int
        As the database has them.
    bytes : int
        Of the backup.
    missing : tuple of str
        Traces whose files are not there.
    damaged : tuple of str
        Files that are not what they should be, and were left out.
    lost : bool
        Whether any of it is a loss, and not a trace that was deleted while the backup was made.
    """

    traces: int
    plans: int
    uploads: int
    bytes: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...] = ()
    lost: bool = False


def backup(folder: Path, file: Path, *, blobs: bool = True) -> Kept:
    """Write a data folder with an embedded database to a tar file, which appears whole or not at all.

    Parameters
    ----------
    folder : Path
        Data folder of a service, running or not.
    file : Path
    blobs : bool
        False leaves the traces out, for a service that keeps them in an object store.

    Raises
    ------
    InputError
        If the folder has no database, or something can't be read or written.
    """
    database = folder / DATABASE
    if not database.is_file():
        detail = f"There is no {DATABASE} in {folder}."
        remedy = "Give the data folder of a service. PostgreSQL is saved with pg_dump; see docs/operations.md."
        raise InputError.of("no_database", "--data-dir", detail, remedy)
    if file.resolve().is_relative_to(folder.resolve()):
        detail = f"{file} is in the folder that is saved."
        raise InputError.of("overwrites_input", str(file), detail, "Name a file outside of it.")
    check_writable(file, "The backup")
    with told("--data-dir", file), tempfile.TemporaryDirectory(dir=file.absolute().parent) as work:
        copy = Path(work) / DATABASE
        _copy_database(database, copy)
        kept = [name for name in contents(copy) if blobs or not name.startswith(BLOBS)]
        held: dict[str, str] = {}
        damaged: list[str] = []
        with atomic_write(file) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
            held[DATABASE] = _add(archive, copy, DATABASE)
            for name in kept:
                with contextlib.suppress(FileNotFoundError):
                    if name.startswith(BLOBS) and not _is_sound(folder / name):
                        damaged.append(name)
                        continue
                    held[name] = _add(archive, folder / name, name)
            manifest = {"format": FORMAT, "version": VERSION, "made_at": time.time(), "blobs": blobs, "sha256": held}
            text = json.dumps(manifest, indent=1).encode()
            entry = tarfile.TarInfo(MANIFEST)
            entry.size, entry.mtime, entry.mode = len(text), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(text))
        # An upload in parts of which nothing has arrived has no file.
        missing = [name for name in kept if name.startswith(BLOBS) and name not in (*held, *damaged)]
        lost = bool(damaged) or not set(missing).isdisjoint(contents(database))
        return summary(copy, file, missing=missing, damaged=damaged, lost=lost)


def _copy_database(source: Path, target: Path) -> None:
    """Copy a database that may be in use: all of one moment."""
    with (
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as given,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        given.execute("PRAGMA busy_timeout=15000")
        given.backup(copy)
        # One file, no log beside it; the service turns it on again.
        copy.execute("PRAGMA journal_mode=DELETE")
    if (found := integrity(target)) != "ok":
        raise InputError.of("database", str(source), f"The database is damaged: {found}.", "Restore an older backup.")


def integrity(database: Path) -> str:
    """Return ``ok``, or what is wrong with a database."""
    with contextlib.closing(_opened(database)) as connection:
        found: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
        return found


def _opened(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)


def _is_sound(path: Path) -> bool:
    """Whether a blob is what its name says; it is read twice, so that nothing damaged is in a backup."""
    with path.open("rb") as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest() == path.name
        except OSError:  # the disk can't read it any more
            return False


def contents(database: Path) -> list[str]:
    """Return the files that a database names, relative to the data folder."""
    with contextlib.closing(_opened(database)) as connection:
        digests = [row[0].removeprefix("sha256:") for row in connection.execute("SELECT DISTINCT id FROM traces")]
        uploads = [row[0] for row in connection.execute("SELECT id FROM uploads")]
    return [f"blobs/sha256/{name[:2]}/{name}" for name in digests] + [f"blobs/parts/{name}" for name in uploads]


def _add(archive: tarfile.TarFile, path: Path, name: str) -> str:
    """Add a file as it is now, and return its digest: an upload in parts may grow meanwhile."""
    with path.open("rb") as file:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mtime, entry.mode = os.fstat(file.fileno()).st_size, int(path.stat().st_mtime), 0o600
        reader = _Hashing(file)
        archive.addfile(entry, reader)  # type: ignore[arg-type]  # it only reads
        return reader.digest.hexdigest()


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        data = self._file.read(size)
        self.digest.update(data)
        return data


def no_backup(file: Path, reason: str) -> InputError:
    """Return what is told of a file that can't be restored."""
    detail = f"{file} is no backup, or damaged: {reason}."
    return InputError.of("no_backup", str(file), detail, "Give a file that `moe-placement backup` wrote.")


def summary(database: Path, file: Path, *, missing: Sequence[str], damaged: Sequence[str], lost: bool) -> Kept:
    """Tell what a backup holds."""
    with contextlib.closing(_opened(database)) as connection:
        traces, plans, uploads = (
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608  # names of our own
            for table in ("traces", "plans", "uploads")
        )
    return Kept(
        traces=traces,
        plans=plans,
        uploads=uploads,
        bytes=file.stat().st_size,
        missing=tuple(missing),
        damaged=tuple(damaged),
        lost=lost,
    )


@contextlib.contextmanager
def told(pointer: str, file: Path) -> Iterator[None]:
    """Turn what the system says into errors of ours."""
    try:
        yield
    except (tarfile.TarError, json.JSONDecodeError, UnicodeDecodeError, EOFError) as error:
        raise no_backup(file, str(error) or "it ends early") from error
    except OSError as error:
        detail = f"{error.filename or file}: {error.strerror or error}."
        raise InputError.of(
            "backup_io", str(file), detail, "Check the path, the access rights and the space."
        ) from error
    except sqlite3.Error as error:
        raise InputError.of(
            "database", pointer, f"The database can't be read: {error}.", "Check the folder."
        ) from error
