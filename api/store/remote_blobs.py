"""Traces in an object store, by way of fsspec."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from api.store.blobs import CHUNK_BYTES, Blobs, Incoming, digest_of, lost, named
from traces import InputError

__all__ = ["RemoteBlobs", "open_blobs"]

DIGITS = 64  # of the name of an object


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

    def sound(self, blob_id: str) -> bool:
        """Whether the object is there, and what its name says. Reads all of it."""
        digest = hashlib.sha256()
        try:
            with self._store.open(self._key(blob_id), "rb") as source:
                while data := source.read(CHUNK_BYTES):
                    digest.update(data)
        except FileNotFoundError:
            return False
        return named(digest.hexdigest()) == blob_id

    def make_way(self, incoming: Incoming) -> None:
        """Store a finished file, unless it is there and sound."""
        super().make_way(incoming)
        if not self.sound(incoming.blob_id):
            self._store.put_file(str(incoming.path), self._key(incoming.blob_id))

    def empty(self) -> bool:
        """Whether no trace is kept."""
        try:
            found = self._store.ls(self._base, detail=False)
        except FileNotFoundError:
            return True
        return not any(len(name.rpartition("/")[2]) == DIGITS for name in found)

    def identity(self) -> str | None:
        """Return what the store is known by: whoever uses it shares it."""
        try:
            text: str = self._store.cat_file(self._identity_key).decode().strip()
        except FileNotFoundError:
            return None
        return text

    def identify(self, identity: str) -> None:
        """Give the store its identity, for good."""
        self._store.pipe_file(self._identity_key, f"{identity}\n".encode())

    def forget_identity(self) -> None:
        """Take it back."""
        if self._store.exists(self._identity_key):
            self._store.rm_file(self._identity_key)

    @property
    def _identity_key(self) -> str:
        return f"{self._base.rstrip('/')}/identity"

    def keep(self, incoming: Incoming) -> None:
        """Store a finished file, then keep it as a cache. An object appears whole, or not at all."""
        key = self._key(incoming.blob_id)
        if not self._store.exists(key):
            self._store.put_file(str(incoming.path), key)
        super().keep(incoming)

    def fetch(self, blob_id: str) -> Path:
        """Return a file to read; fetched, and checked, if it is not here or damaged."""
        path = self.path(blob_id)
        if path.exists() and digest_of(path) == blob_id:
            return path
        incoming = self.receive()
        try:
            with self._store.open(self._key(blob_id), "rb") as source:
                while data := source.read(CHUNK_BYTES):
                    incoming.write(data)
            incoming.finish()
            if incoming.blob_id != blob_id:
                detail = f"The file of trace {blob_id} is damaged in the object store."
                raise InputError.of("trace_damaged", "/trace", detail, "Upload it again, which heals it.")
            path.parent.mkdir(exist_ok=True)
            incoming.path.replace(path)
        except FileNotFoundError:
            raise lost(blob_id) from None
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
