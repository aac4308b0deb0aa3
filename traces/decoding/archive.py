"""Members of an `.npz` archive as array streams. The zip checksums are verified while reading."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy.typing as npt

from traces.decoding.files import TraceFile, guarded
from traces.decoding.npy import ArrayHeader, ArrayStream
from traces.support.errors import InputError

__all__ = ["MAGIC", "Archive", "check_zip", "is_torch_archive", "open_archive", "read_arrays"]

MAGIC = b"PK\x03\x04"
DIRECTORY_BYTES = 16 << 20  # of a zip; it is read as a whole, and takes about ten times as much in memory
ARRAYS_LIMIT = 4 << 30  # bytes of the arrays that are read as a whole
ENCRYPTED = 1  # flag of a member
NAME_LENGTH_AT = 26  # in the header before a member; the length of the extra field is behind it
END_BYTES = 22 + 65_535  # the record at the end and the longest comment


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

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of all members as the archive's directory states them, which is what `stream` reads at most."""
        return sum(info.file_size for info in self._members.values())

    def stream(self, key: str) -> ArrayStream:
        """Open the array `key` at its first row."""
        info, place = self._members[key], f"{self.name}#/{key}"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError.of(
                "zip_method", place, "Only stored and deflated members are read.", "Save with numpy.savez."
            )
        with guarded(place):
            member: Any = self._zipped.open(info)
            plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & ENCRYPTED
            if plain and info.compress_size == info.file_size and self._zipped.fp is not None:
                member = _Stored(self._zipped.fp, info)
            return ArrayStream(member, info.file_size, place)

    def header(self, key: str) -> ArrayHeader:
        """Read type and shape of the array `key`."""
        return self.stream(key).header


class _Stored:
    """A member that is not compressed, read without the copies that `zipfile` makes of it."""

    def __init__(self, stream: IO[bytes], info: zipfile.ZipInfo) -> None:
        stream.seek(info.header_offset + NAME_LENGTH_AT)
        name, extra = (int.from_bytes(stream.read(2), "little") for _ in range(2))
        self._stream, self._info = stream, info
        self._at, self._left, self._crc = stream.tell() + name + extra, info.file_size, 0

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        self._stream.seek(self._at)
        data = self._stream.read(min(size, self._left))
        self._passed(data)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer with the next bytes; returns how many there are."""
        wanted = memoryview(buffer)[: self._left]
        self._stream.seek(self._at)
        count: int = self._stream.readinto(wanted)  # type: ignore[attr-defined]  # of every file that is read
        self._passed(wanted[:count])
        return count

    def _passed(self, data: bytes | memoryview) -> None:
        self._at, self._left = self._at + len(data), self._left - len(data)
        self._crc = zlib.crc32(data, self._crc)
        if len(data) and not self._left and self._crc != self._info.CRC:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {self._info.filename!r}")


@contextmanager
def open_archive(stream: IO[bytes], name: str) -> Iterator[Archive]:
    """Open the zip archive in `stream`; `name` is what errors point at."""
    check_zip(stream, name)
    with guarded(name):
        zipped = zipfile.ZipFile(stream)
    with zipped:
        yield Archive(zipped, name)


def check_zip(stream: IO[bytes], name: str) -> None:
    """Refuse a zip archive whose directory would take too much memory to be looked at."""
    with guarded(name):
        size = stream.seek(0, 2)
        stream.seek(max(0, size - END_BYTES - 20 - 56))
        tail = stream.read()
        end, wide = tail.rfind(b"PK\x05\x06"), tail.rfind(b"PK\x06\x06")
        stated = int.from_bytes(tail[end + 12 : end + 16], "little") if end >= 0 else 0
        if stated == 0xFFFFFFFF and wide >= 0:
            stated = int.from_bytes(tail[wide + 40 : wide + 48], "little")
        stream.seek(0)
    if stated > DIRECTORY_BYTES:
        raise InputError.of("too_many_files", name, f"A directory of {stated} bytes.", "Save fewer arrays in it.")


def is_torch_archive(file: TraceFile) -> bool:
    """Tell whether a zip file is one of `torch.save`: its first member is ``NAME/data.pkl``."""
    length = int.from_bytes(file.head[26:28], "little")
    first = file.head[30 : 30 + length]
    return file.head.startswith(MAGIC) and first.endswith(b"/data.pkl") and first.count(b"/") == 1


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an `.npz` that is known to be small, such as a saved profile.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    InputError
        If the file is no archive of plain arrays, is damaged, or would take more than 4 GB.
    """
    file = TraceFile.of(path)
    with file.open() as stream, open_archive(stream, file.name) as archive:
        streams = {key: archive.stream(key) for key in archive.keys}
        if sum(part.header.data_bytes for part in streams.values()) > ARRAYS_LIMIT:
            raise InputError.of(
                "too_large", file.name, "The arrays take more than 4 GB.", "Check that this is the right file."
            )
        return {key: part.whole() for key, part in streams.items()}
