"""Backup and restore of a service's data folder, as one tar file: the database as it is at one moment, and all blobs.

A backup may be taken while the service runs. The database is copied first (SQLite's online backup): what it names is
on the disk by then, since a trace's file is kept before its row, and files are only removed after their row. A file
that is missing is left out and reported: its trace was deleted meanwhile, or lost before.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from traces import InputError
from traces.support.atomic import atomic_write, check_writable

__all__ = ["Kept", "backup", "restore"]

FORMAT = "moe-placement backup"
VERSION = 1
DATABASE = "service.db"
MANIFEST = "manifest.json"
BLOBS = "blobs/sha256/"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a backup holds."""

    traces: int
    plans: int
    uploads: int
    bytes: int
    missing: tuple[str, ...]


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
    with _told("--data-dir", file), tempfile.TemporaryDirectory(dir=file.absolute().parent) as work:
        copy = Path(work) / DATABASE
        _copy_database(database, copy)
        kept = [name for name in _contents(copy) if blobs or not name.startswith(BLOBS)]
        held: dict[str, str] = {}
        with atomic_write(file) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
            held[DATABASE] = _add(archive, copy, DATABASE)
            for name in kept:
                with contextlib.suppress(FileNotFoundError):
                    held[name] = _add(archive, folder / name, name)
            manifest = {"format": FORMAT, "version": VERSION, "made_at": time.time(), "sha256": held}
            text = json.dumps(manifest, indent=1).encode()
            entry = tarfile.TarInfo(MANIFEST)
            entry.size, entry.mtime, entry.mode = len(text), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(text))
        return _summary(copy, held, tuple(name for name in kept if name not in held), file.stat().st_size)


def restore(file: Path, folder: Path) -> Kept:
    """Make a data folder from a backup. Every file's digest is checked before the folder gets its name.

    Parameters
    ----------
    file : Path
    folder : Path
        Must not exist, or be empty.

    Raises
    ------
    InputError
        If the folder is not empty, or the file is no backup, damaged, or of a later version.
    """
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        detail = f"Can't write to {str(folder)[:200]}: {error.strerror}."
        raise InputError.of("data_dir", "--data-dir", detail, "Give a data folder that can be made.") from error
    if taken:
        detail = f"{folder} is not empty."
        raise InputError.of("not_empty", "--data-dir", detail, "Give a new folder: nothing is ever overwritten.")
    if not file.is_file():
        detail = "There is no such file." if not file.exists() else "This is no regular file."
        raise InputError.of("no_backup", str(file), detail, "Name a file that `backup` wrote.")
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-"[:100], dir=folder.absolute().parent))
    except OSError as error:
        detail = f"Can't write to {folder}: {error.strerror}."
        raise InputError.of("data_dir", "--data-dir", detail, "Give a data folder that can be made.") from error
    try:
        with _told(str(file), file):
            found, manifest = _extract(file, work)
            _check(found, manifest, file)
            _sync(work)
            if folder.exists():
                folder.rmdir()
            work.rename(folder)
        return _summary(folder / DATABASE, found, (), file.stat().st_size)
    finally:
        shutil.rmtree(work, ignore_errors=True)


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
        found = copy.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise InputError.of("database", str(source), f"The database is damaged: {found}.", "Restore an older backup.")


def _contents(database: Path) -> list[str]:
    """Return the files that a database names, relative to the data folder."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
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


def _extract(file: Path, folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Write what an archive holds below a folder; return the digests of what was written, and the manifest."""
    found: dict[str, str] = {}
    manifest: dict[str, Any] = {}
    with tarfile.open(file, "r:") as archive:
        for entry in archive:
            content = archive.extractfile(entry) if entry.isreg() else None
            if content is None or (entry.name not in (DATABASE, MANIFEST) and not _is_blob(entry.name)):
                raise _no_backup(file, f"it holds {entry.name[:100]!r}")
            if entry.name == MANIFEST:
                manifest = json.loads(content.read())
                continue
            target = folder / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with target.open("xb") as out:
                while data := content.read(CHUNK_BYTES):
                    digest.update(data)
                    out.write(data)
                out.flush()
                os.fsync(out.fileno())
            found[entry.name] = digest.hexdigest()
    return found, manifest


def _is_blob(name: str) -> bool:
    parts = name.split("/")
    if parts[:2] == ["blobs", "parts"]:
        return len(parts) == 3 and parts[2].removeprefix("upload_").isalnum()
    digits = parts[-1]
    return parts[:-1] == ["blobs", "sha256", digits[:2]] and len(digits) == 64 and digits.isalnum()


def _check(found: dict[str, str], manifest: Any, file: Path) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _no_backup(file, "it has no manifest")
    if manifest.get("version") != VERSION:
        detail = f"{file} was made by a later version."
        raise InputError.of("backup_version", str(file), detail, "Restore it with that version, or a later one.")
    stated = manifest.get("sha256")
    blobs = {name: name.rpartition("/")[2] for name in found if name.startswith(BLOBS)}
    if found != stated or any(found[name] != digest for name, digest in blobs.items()):
        raise _no_backup(file, "digests differ")


def _no_backup(file: Path, reason: str) -> InputError:
    detail = f"{file} is no backup, or damaged: {reason}."
    return InputError.of("no_backup", str(file), detail, "Give a file that `moe-placement backup` wrote.")


def _summary(database: Path, held: dict[str, str], missing: tuple[str, ...], size: int) -> Kept:
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        traces, plans, uploads = (
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608  # names of our own
            for table in ("traces", "plans", "uploads")
        )
    # An upload in parts of which nothing has arrived has no file.
    lost = tuple(name for name in missing if name.startswith(BLOBS))
    return Kept(traces=traces, plans=plans, uploads=uploads, bytes=size, missing=lost)


def _sync(folder: Path) -> None:
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _told(pointer: str, file: Path) -> Iterator[None]:
    """Turn what the system says into errors of ours."""
    try:
        yield
    except (tarfile.TarError, json.JSONDecodeError, UnicodeDecodeError, EOFError) as error:
        raise _no_backup(file, str(error) or "it ends early") from error
    except OSError as error:
        detail = f"{error.filename or file}: {error.strerror or error}."
        raise InputError.of(
            "backup_io", str(file), detail, "Check the path, the access rights and the space."
        ) from error
    except sqlite3.Error as error:
        raise InputError.of(
            "database", pointer, f"The database can't be read: {error}.", "Check the folder."
        ) from error
