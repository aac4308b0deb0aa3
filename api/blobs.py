"""Traces on disk: content-addressed, written whole or not at all, never changed afterwards."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

__all__ = ["Blobs", "Incoming"]

PREFIX = "sha256:"
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
        for folder in (self._kept, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, blob_id: str) -> Path:
        """Return where the content of that name is, or would be."""
        digits = blob_id.removeprefix(PREFIX)
        if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
            raise ValueError(f"{blob_id!r} is not the name of a blob")
        return self._kept / digits[:2] / digits

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

    def sweep(self, known: set[str]) -> list[str]:
        """Remove what a crash left behind: unfinished files, and blobs that nobody knows. Only at start-up.

        Parameters
        ----------
        known : set of str
            Names to keep.

        Returns
        -------
        list of str
            Known names whose content is missing.
        """
        for path in self._incoming.iterdir():
            path.unlink(missing_ok=True)
        for path in self._kept.glob("*/*"):
            if PREFIX + path.name not in known:
                path.unlink(missing_ok=True)
        return sorted(name for name in known if not self.path(name).exists())


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
