"""Files that make one trace together, such as one per rank: a folder, or what a tar archive holds."""

from __future__ import annotations

import fnmatch
import hashlib
from dataclasses import dataclass

from traces.decoding.files import TraceFile

__all__ = ["MAX_FILES", "Bundle"]

MAX_FILES = 65_536


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Named files, sorted by name.

    Attributes
    ----------
    name : str
        Of the folder or archive: the first part of every place in an error.
    files : tuple of TraceFile
        At least one; their `name` begins with that of the bundle.
    members : tuple of str
        Names inside the bundle, in the order of `files`; folders are separated by ``/``.
    notes : tuple of str
        What was left out on the way, as sentences.
    """

    name: str
    files: tuple[TraceFile, ...]
    members: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def single(cls, file: TraceFile) -> Bundle:
        """Return the bundle of one file."""
        return cls(name=file.name, files=(file,), members=(file.name,))

    def matching(self, pattern: str) -> tuple[tuple[str, TraceFile], ...]:
        """Return (base name, file) of the members whose base name matches a shell pattern, such as ``rank*.jsonl``."""
        named = ((member.rpartition("/")[2], file) for member, file in zip(self.members, self.files, strict=True))
        return tuple((base, file) for base, file in named if fnmatch.fnmatchcase(base, pattern))

    def sha256(self) -> str:
        """Return a SHA-256 over names and contents, as hexadecimal digits; that of a single file is its own."""
        if len(self.files) == 1:
            return self.files[0].sha256()
        digest = hashlib.sha256()
        for member, file in zip(self.members, self.files, strict=True):
            digest.update(f"{len(member)}:{member}:{file.sha256()}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
