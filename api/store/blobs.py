"""Traces as files, here or in an object store: content-addressed, written whole or not at all, checked when read."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from traces import InputError

__all__ = ["Blobs", "Incoming", "RemoteBlobs", "open_blobs"]

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
            detail = f"The service has lost the file of trace {blob_id}."
            raise InputError.of("trace_lost", "/trace", detail, "Upload it again.")
        if _digest_of(path) != blob_id:
            detail = f"The file of trace {blob_id} is damaged on the service's disk."
            raise InputError.of("trace_damaged", "/trace", detail, "Delete the trace and upload it again.")
        return path

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

    def keep(self, incoming: Incoming) -> None:
        """Give a finished file its name; content that is there already stays as it is."""
        target = self.path(incoming.blob_id)
        if target.exists():
            incoming.discard()
            return
        target.parent.mkdir(exist_ok=True)
        incoming.path.replace(target)
        for folder in (target.parent, self._kept):
            _sync_folder(folder)

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


class RemoteBlobs(Blobs):
    """Blobs in an object store; the folder is a cache of what was written or read here.

    Parameters
    ----------
    root : Path
        Folder on this machine.
    url : str
        Of fsspec, such as ``s3://bucket/prefix``.
    """

    def __init__(self, root: Path, url: str) -> None:
        super().__init__(root)
        try:
            from fsspec.core import url_to_fs

            self._store, self._base = url_to_fs(url)
        except (ImportError, ValueError) as error:
            detail, remedy = (
                f"{url.partition('://')[0]}:// can't be used: {error}",
                "Install the package that it names.",
            )
            raise InputError.of("blobs_url", "/blobs_url", detail, remedy) from error
        if "file" in self._store.protocol:  # object stores have no folders to make
            self._store.makedirs(self._base, exist_ok=True)

    def _key(self, blob_id: str) -> str:
        return f"{self._base.rstrip('/')}/{self.path(blob_id).name}"

    def keep(self, incoming: Incoming) -> None:
        """Store a finished file, then keep it as a cache. An object appears whole, or not at all."""
        key = self._key(incoming.blob_id)
        if not self._store.exists(key):
            self._store.put_file(str(incoming.path), key)
        super().keep(incoming)

    def fetch(self, blob_id: str) -> Path:
        """Return a file to read; fetched, and checked, if it is not here or damaged."""
        path = self.path(blob_id)
        if path.exists() and _digest_of(path) == blob_id:
            return path
        incoming = self.receive()
        try:
            with self._store.open(self._key(blob_id), "rb") as source:
                while data := source.read(CHUNK_BYTES):
                    incoming.write(data)
            incoming.finish()
            if incoming.blob_id != blob_id:
                detail = f"The file of trace {blob_id} is damaged in the object store."
                raise InputError.of("trace_damaged", "/trace", detail, "Delete the trace and upload it again.")
            path.parent.mkdir(exist_ok=True)
            incoming.path.replace(path)
        except FileNotFoundError:
            detail = f"The service has lost the file of trace {blob_id}."
            raise InputError.of("trace_lost", "/trace", detail, "Upload it again.") from None
        finally:
            incoming.discard()
        return path

    def delete(self, blob_id: str) -> None:
        """Remove an object, and the cached file."""
        if self._store.exists(key := self._key(blob_id)):
            self._store.rm_file(key)
        super().delete(blob_id)

    def exists(self, blob_id: str) -> bool:
        """Whether the object is there."""
        found: Any = self._store.exists(self._key(blob_id))
        return bool(found)


def open_blobs(root: Path, url: str | None) -> Blobs:
    """Return the blobs of a service: a folder, or an object store with the folder as its cache."""
    return Blobs(root) if url is None else RemoteBlobs(root, url)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return PREFIX + hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
