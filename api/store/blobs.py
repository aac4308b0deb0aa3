"""Traces as files: content-addressed, written whole or not at all, checked when read, and healed by the same bytes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from traces import InputError

__all__ = ["CHUNK_BYTES", "PREFIX", "Blobs", "Incoming", "digest_of", "lost", "named", "written"]

PREFIX = "sha256:"
CHUNK_BYTES = 1 << 20
ALGORITHMS = {"sha-256": "sha256", "sha-512": "sha512"}


class Incoming:
    """A file that is being received: hashed while it is written, gone unless it is kept.

    Parameters
    ----------
    path : Path
    file : binary file
    algorithms : iterable of str
        Digests to compute besides SHA-256, by their names in RFC 9530.
    """

    def __init__(self, path: Path, file: IO[bytes], algorithms: Iterable[str] = ()) -> None:
        self.path = path
        self.size = 0
        self._file = file
        self._hashes = {name: hashlib.new(ALGORITHMS[name]) for name in {"sha-256", *algorithms}}

    def write(self, data: bytes | bytearray) -> None:
        """Append `data`."""
        for digest in self._hashes.values():
            digest.update(data)
        self._file.write(data)
        self.size += len(data)

    def read_through(self) -> None:
        """Hash a file that was written before."""
        while data := self._file.read(CHUNK_BYTES):
            for digest in self._hashes.values():
                digest.update(data)
            self.size += len(data)
        self._file.close()

    def finish(self) -> None:
        """Make what was written durable."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Remove the file, if it was not kept."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def digest(self, algorithm: str) -> bytes:
        """Return a digest of what was written."""
        return self._hashes[algorithm].digest()

    @property
    def blob_id(self) -> str:
        """``sha256:...``, the name of the content."""
        return PREFIX + self._hashes["sha-256"].hexdigest()


class Blobs:
    """The folder of blobs.

    Parameters
    ----------
    root : Path
        Created if missing.
    """

    def __init__(self, root: Path) -> None:
        self._kept = root / "sha256"
        self._incoming = root / "incoming"
        self._parts = root / "parts"
        self._identity = root / "identity"
        for folder in (self._kept, self._incoming, self._parts):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, blob_id: str) -> Path:
        """Return where the content of that name is, or would be."""
        digits = blob_id.removeprefix(PREFIX)
        if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
            raise ValueError(f"{blob_id!r} is not the name of a blob")
        return self._kept / digits[:2] / digits

    def fetch(self, blob_id: str) -> Path:
        """Return a file to read, after its content was found to be what its name says.

        Raises
        ------
        InputError
            ``trace_lost`` or ``trace_damaged``.
        """
        path = self.path(blob_id)
        if not path.exists():
            raise lost(blob_id)
        if digest_of(path) != blob_id:
            detail = f"The file of trace {blob_id} is damaged on the service's disk."
            raise InputError.of("trace_damaged", "/trace", detail, "Upload it again, which heals it.")
        return path

    def sound(self, blob_id: str) -> bool:
        """Whether the content is there, and what its name says. Reads all of it."""
        return _is_content(self.path(blob_id), blob_id)

    def part(self, upload_id: str) -> Path:
        """Return where an upload in parts gathers."""
        return self._parts / upload_id

    def take_part(self, upload_id: str, algorithms: Iterable[str] = ()) -> Incoming:
        """Turn a gathered upload into a received file, hashed. Its parts stay until it is kept or they are dropped."""
        path = self.part(upload_id)
        incoming = Incoming(path, path.open("rb"), algorithms)
        incoming.read_through()
        return incoming

    def drop_part(self, upload_id: str) -> None:
        """Remove what was gathered."""
        self.part(upload_id).unlink(missing_ok=True)

    def receive(self, algorithms: Iterable[str] = ()) -> Incoming:
        """Begin a new file; see `Incoming`."""
        handle, name = tempfile.mkstemp(prefix="upload-", dir=self._incoming)
        return Incoming(Path(name), os.fdopen(handle, "wb"), algorithms)

    def make_way(self, incoming: Incoming) -> None:
        """Remove what is there under the name of a finished file, if it is damaged: `keep` puts the file in its place.

        It takes as long as reading takes, so it is done before whatever others wait for.
        """
        path = self.path(incoming.blob_id)
        if path.exists() and not _is_content(path, incoming.blob_id):
            path.unlink(missing_ok=True)

    def keep(self, incoming: Incoming) -> None:
        """Give a finished file its name; content that is there already stays as it is: see `make_way`."""
        target = self.path(incoming.blob_id)
        if target.exists():
            incoming.discard()
            return
        target.parent.mkdir(exist_ok=True)
        incoming.path.replace(target)
        for folder in (target.parent, self._kept):
            _sync_folder(folder)

    def empty(self) -> bool:
        """Whether no trace is kept."""
        return next(self._kept.glob("*/*"), None) is None

    def identity(self) -> str | None:
        """Return what this place is known by; None if it has no identity yet."""
        return self._identity.read_text().strip() if self._identity.exists() else None

    def identify(self, identity: str) -> None:
        """Give this place its identity, for good."""
        written(self._identity, f"{identity}\n".encode())

    def forget_identity(self) -> None:
        """Take it back: the database has another."""
        self._identity.unlink(missing_ok=True)

    def delete(self, blob_id: str) -> None:
        """Remove a blob, if it is there."""
        self.path(blob_id).unlink(missing_ok=True)

    def sweep(self, known: set[str], uploads: Collection[str] = ()) -> list[str]:
        """Remove what a crash left behind: unfinished files, and blobs that nobody knows. Only at start-up.

        Parameters
        ----------
        known : set of str
            Names to keep.
        uploads : collection of str
            Uploads in parts to keep.

        Returns
        -------
        list of str
            Known names whose content is missing.
        """
        for path in self._incoming.iterdir():
            path.unlink(missing_ok=True)
        for path in self._parts.iterdir():
            if path.name not in uploads:
                path.unlink(missing_ok=True)
        for path in self._kept.glob("*/*"):
            if PREFIX + path.name not in known:
                path.unlink(missing_ok=True)
        return sorted(name for name in known if not self.exists(name))

    def drop_unfinished(self, before: float) -> list[Path]:
        """Remove files that nobody finished or wrote to since a time: those of processes that were killed."""
        dropped = []
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):  # it was finished meanwhile
                if path.stat().st_mtime < before:
                    path.unlink()
                    dropped.append(path)
        return dropped

    def exists(self, blob_id: str) -> bool:
        """Whether the content is there."""
        return self.path(blob_id).exists()


def written(path: Path, content: bytes) -> None:
    """Write a small file, whole and durable."""
    unfinished = path.with_name(f".{path.name}")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    _sync_folder(path.parent)


def lost(blob_id: str) -> InputError:
    """Return what is told of a trace without its file."""
    detail = f"The service has lost the file of trace {blob_id}."
    return InputError.of("trace_lost", "/trace", detail, "Upload it again.")


def named(digest: str) -> str:
    """Return the name of content by its SHA-256 in hexadecimal."""
    return PREFIX + digest


def _is_content(path: Path, blob_id: str) -> bool:
    try:
        return path.exists() and digest_of(path) == blob_id
    except OSError:  # the disk can't read it any more
        return False


def digest_of(path: Path) -> str:
    """Return the name that the content of a file asks for."""
    with path.open("rb") as file:
        return named(hashlib.file_digest(file, "sha256").hexdigest())


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
