"""Restoring a backup: everything that is sound, and what is not is told.

The database decides: without it there is nothing to restore. Files are named by their digests, which are checked; a
part of an upload is checked by the manifest. A backup that is damaged is read on behind the damage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from api.store.backup import (
    BLOBS,
    CHUNK_BYTES,
    DATABASE,
    FORMAT,
    MANIFEST,
    VERSION,
    Kept,
    contents,
    integrity,
    no_backup,
    summary,
    told,
)
from api.store.blobs import Blobs
from traces import InputError

__all__ = ["restore"]

MANIFEST_BYTES = 1 << 30


def restore(file: Path, folder: Path) -> Kept:
    """Make a data folder from a backup. Every file's digest is checked before the folder gets its name.

    Parameters
    ----------
    file : Path
    folder : Path
        Must not exist, or be empty.

    Returns
    -------
    Kept
        With the names of what was damaged, and left out.

    Raises
    ------
    InputError
        If the folder is not empty, or the file is no backup, of a later version, or its database is damaged.
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
        with told(str(file), file):
            found = _extract(file, work)
            damaged = _sound_only(found, work, file)
            named = contents(work / DATABASE)
            missing = [name for name in named if name.startswith(BLOBS) and name not in (*found.held, *damaged)]
            if not found.without_blobs and (identity := _identity(work / DATABASE)) is not None:
                Blobs(work / "blobs").identify(identity)
            _sync(work)
            if folder.exists():
                folder.rmdir()
            work.rename(folder)
        missing = [] if found.without_blobs else missing
        return summary(folder / DATABASE, file, missing=missing, damaged=damaged, lost=bool(damaged))
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass(kw_only=True)
class _Found:
    """What was read: files by their digests, manifests, and files that end too early."""

    held: dict[str, str] = field(default_factory=dict)
    manifests: list[Any] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    whole: bool = True  # no damage between the files

    @property
    def without_blobs(self) -> bool:
        """Whether it is the backup of a service that keeps its traces in an object store."""
        # Manifests of earlier versions do not say it.
        has = any(name.startswith(BLOBS) for name in self.held)
        return any(isinstance(entry, dict) and not entry.get("blobs", has) for entry in self.manifests)


def _extract(file: Path, folder: Path) -> _Found:
    """Write what an archive holds below a folder."""
    found, expected = _Found(), 0
    with tarfile.open(
        file, "r:", ignore_zeros=True
    ) as archive:  # it looks for the next file behind one that is damaged
        for entry in _entries(archive):
            found.whole &= entry.offset == expected
            expected = entry.offset_data + -(-entry.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            content = archive.extractfile(entry) if entry.isreg() else None
            if content is None or (entry.name not in (DATABASE, MANIFEST) and not _is_blob(entry.name)):
                if not found.whole:
                    continue  # behind damage, what looks like a file may be the content of one
                raise no_backup(file, f"it holds {entry.name[:100]!r}")
            if entry.name == MANIFEST:
                with contextlib.suppress(ValueError, tarfile.ReadError):
                    found.manifests.append(json.loads(content.read(MANIFEST_BYTES)))
            elif entry.name not in found.held and (not found.held) == (entry.name == DATABASE):
                _write(content, folder, entry.name, found)
            elif not found.held:
                raise no_backup(file, "it does not begin with its database")
    return found


def _entries(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Iterate over what an archive holds; one that is cut off ends there."""
    with contextlib.suppress(tarfile.ReadError):
        yield from archive


def _write(content: IO[bytes], folder: Path, name: str, found: _Found) -> None:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("wb") as out:
        try:
            while data := content.read(CHUNK_BYTES):
                digest.update(data)
                out.write(data)
        except tarfile.ReadError:
            found.cut.append(name)
        out.flush()
        os.fsync(out.fileno())
    found.held[name] = digest.hexdigest()


def _is_blob(name: str) -> bool:
    parts = name.split("/")
    if parts[:2] == ["blobs", "parts"]:
        return len(parts) == 3 and parts[2].removeprefix("upload_").isalnum()
    digits = parts[-1]
    return parts[:-1] == ["blobs", "sha256", digits[:2]] and len(digits) == 64 and digits.isalnum()


def _sound_only(found: _Found, folder: Path, file: Path) -> list[str]:
    """Remove what is damaged, and return its names; `InputError` if that is the database."""
    ours = [entry for entry in found.manifests if isinstance(entry, dict) and entry.get("format") == FORMAT]
    later = [entry for entry in ours if entry.get("version") != VERSION]
    if later:
        detail = f"{file} was made by a later version."
        raise InputError.of("backup_version", str(file), detail, "Restore it with that version, or a later one.")
    if DATABASE not in found.held:
        raise no_backup(file, "it holds no database")
    digests = [entry["sha256"] for entry in ours if isinstance(entry.get("sha256"), dict)]
    stated = next((held for held in digests if held.get(DATABASE) == found.held[DATABASE]), None)
    damaged: list[str] = []
    if stated is None:  # the manifest is the last file: it is cut off, or damaged
        if digests or DATABASE in found.cut or _wrong(folder / DATABASE) is not None:
            raise no_backup(file, "its database is damaged")
        stated, damaged = {}, [MANIFEST]
    for name, digest in found.held.items():
        sound = name.rpartition("/")[2] if name.startswith(BLOBS) else stated.get(name)
        if name != DATABASE and digest != sound:
            (folder / name).unlink()
            damaged.append(name)
    return damaged + [name for name in stated if name not in found.held]


def _wrong(database: Path) -> str | None:
    try:
        found = integrity(database)
        contents(database)
    except sqlite3.Error as error:
        return str(error)
    return None if found == "ok" else found


def _identity(database: Path) -> str | None:
    """Return what the service is known by; None of an earlier version's."""
    with contextlib.closing(sqlite3.connect(database)) as connection, contextlib.suppress(sqlite3.OperationalError):
        row = connection.execute("SELECT identity FROM service").fetchone()
        return None if row is None else str(row[0])
    return None


def _sync(folder: Path) -> None:
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
