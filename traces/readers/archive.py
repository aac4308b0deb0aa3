"""Members of an `.npz` archive as array streams. The zip checksums are verified while reading."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from traces.errors import InputError
from traces.readers.files import guarded
from traces.readers.npy import ArrayHeader, ArrayStream

__all__ = ["MAGIC", "Archive", "open_archive"]

MAGIC = b"PK\x03\x04"


class Archive:
    """An open `.npz`: keys are the member names without ``.npy``."""

    def __init__(self, zipped: zipfile.ZipFile, name: str) -> None:
        self.name = name
        self._zipped = zipped
        self._members: dict[str, zipfile.ZipInfo] = {}
        for info in zipped.infolist():
            key = info.filename.removesuffix(".npy")
            if key in self._members:
                raise InputError.of(
                    "duplicate_member", f"{name}#/{key}", "The archive holds it twice.", "Save it again."
                )
            self._members[key] = info

    @property
    def keys(self) -> list[str]:
        """Names of the arrays."""
        return list(self._members)

    def stream(self, key: str) -> ArrayStream:
        """Open the array `key` at its first row."""
        info, place = self._members[key], f"{self.name}#/{key}"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError.of(
                "zip_method", place, "Only stored and deflated members are read.", "Save with numpy.savez."
            )
        with guarded(place):
            return ArrayStream(self._zipped.open(info), info.file_size, place)

    def header(self, key: str) -> ArrayHeader:
        """Read type and shape of the array `key`."""
        return self.stream(key).header


@contextmanager
def open_archive(stream: IO[bytes], name: str) -> Iterator[Archive]:
    """Open the zip archive in `stream`; `name` is what errors point at."""
    with guarded(name):
        zipped = zipfile.ZipFile(stream)
    with zipped:
        yield Archive(zipped, name)
