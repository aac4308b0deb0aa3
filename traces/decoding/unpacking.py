"""Compressed files and tar archives, unpacked to a temporary folder within limits; member names never become paths.

A small file can be made to unpack to any size. So what comes out is counted while it is written, and the unpacking
ends as soon as it is too much, whatever the headers say.
"""

from __future__ import annotations

import contextlib
import gzip
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from traces.decoding.bundles import MAX_FILES, Bundle
from traces.decoding.files import TraceFile, guarded
from traces.support.errors import InputError
from traces.support.temporary import HeldFolder

__all__ = ["UnpackLimits", "compression", "is_empty_tar", "is_tar", "unpack_stream", "unpack_tar"]

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
CHUNK_BYTES = 1 << 20
FREE_BYTES = 64 << 20  # no ratio is too high for what takes no room
EMPTY_BYTES = 1 << 20  # usually 10,240
TAR_READ_BYTES = 4 << 20  # the standard library reads extended headers as a whole
ZSTD_WINDOW_BYTES = 128 << 20
ZSTD_READ_BYTES = 2048  # which give 64 MiB at most: 4 bytes can stand for a block of 128 KiB


@dataclass(frozen=True, kw_only=True)
class UnpackLimits:
    """How much may come out of an archive.

    Attributes
    ----------
    max_bytes : int
        In total.
    max_ratio : float
        Relative to the archive's own size, beyond the first 64 MiB. Recorded traces reach about 30.
    """

    max_bytes: int = 64 << 30
    max_ratio: float = 200.0

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_ratio"):
            if not getattr(self, name) >= 1:
                raise InputError.of(
                    "unpack_limit", f"/{name}", f"The limit is {getattr(self, name)}.", "Give a number of at least 1."
                )

    def check(self, packed: int, unpacked: int, place: str) -> None:
        """Refuse more than the limits allow."""
        allowed = min(self.max_bytes, max(FREE_BYTES, int(min(packed * self.max_ratio, 1 << 62))))
        if unpacked > allowed:
            raise InputError.of(
                "unpacks_too_large",
                place,
                f"{packed} bytes unpack to more than {allowed}.",
                "If the file is to be trusted, unpack it yourself, or raise the limit (unpack=UnpackLimits(...)).",
            )


def compression(file: TraceFile) -> str | None:
    """Name the compression of a file, ``gzip`` or ``zstd``, by its first bytes."""
    if file.head.startswith(GZIP):
        return "gzip"
    return "zstd" if file.head.startswith(ZSTD) else None


def is_tar(file: TraceFile) -> bool:
    """Tell whether a file begins with a valid tar header."""
    with contextlib.suppress(tarfile.HeaderError):
        tarfile.TarInfo.frombuf(file.head[:512], "utf-8", "surrogateescape")
        return True
    return False


def is_empty_tar(file: TraceFile) -> bool:
    """Tell whether a file is what `tar` writes for nothing: blocks of zeros."""
    blocks, rest = divmod(file.size, tarfile.BLOCKSIZE)
    if rest or blocks < 2 or file.size > EMPTY_BYTES or any(file.head):
        return False
    with file.open() as stream:
        return not any(stream.read())


def unpack_stream(file: TraceFile, limits: UnpackLimits) -> TraceFile:
    """Unpack a compressed file; the result keeps its name.

    Raises
    ------
    InputError
        If it is damaged, cut off, or larger than the limits.
    """
    folder = HeldFolder()
    target = folder.path / "unpacked"
    with file.open() as packed, _decompressed(file, packed) as stream, target.open("wb") as written:
        _copy(stream, written, file, limits)
    return replace(_looked_at(target, file.name), holder=folder)


def unpack_tar(file: TraceFile, limits: UnpackLimits, name: str) -> Bundle:
    """Unpack the regular files of a tar archive, under numbers in place of their names.

    Raises
    ------
    InputError
        If it is damaged, holds links, devices, sparse files, names that lead out of it or occur twice, other archives,
        nothing, or more than the limits allow.
    """
    folder = HeldFolder()
    members: dict[str, TraceFile] = {}
    hidden: list[str] = []
    total = 0
    with guarded(name, tarfile.TarError), file.open() as stream:
        # What follows a damaged header would be skipped: errors must be raised, by a level of 2.
        archive = tarfile.open(fileobj=_Bounded(stream), mode="r:", errorlevel=2)  # type: ignore[call-overload]  # noqa: SIM115  a reader with read, seek and tell is enough
        for number, info in enumerate(archive):
            if number >= MAX_FILES:
                raise InputError.of("too_many_files", name, f"More than {MAX_FILES} members.", "Load parts of it.")
            if info.isdir():
                continue
            member = _checked_name(info, name)
            place = f"{name}/{member}"
            total += info.size
            limits.check(file.size, total, name)
            if member.rpartition("/")[2].startswith("."):
                hidden.append(member)
                continue
            if member in members:
                raise InputError.of("duplicate_member", place, "The archive holds it twice.", "Pack it again.")
            target = folder.path / str(len(members))
            source = archive.extractfile(info)
            assert source is not None
            with source, target.open("wb") as written:
                _copy(source, written, file, limits)
            if target.stat().st_size != info.size:
                raise InputError.of("damaged_file", place, "The archive is cut off.", "Copy or pack it again.")
            inner = replace(_looked_at(target, place), holder=folder)
            if compression(inner) is not None or is_tar(inner):
                raise InputError.of("nested_archive", place, "An archive inside the archive.", "Unpack that one first.")
            members[member] = inner
    if not members:
        raise InputError.of("empty_archive", name, "The archive holds no file.", "Check the recording.")
    names = tuple(sorted(members))
    notes = (f"{len(hidden)} hidden files of the archive were left out, such as {hidden[0][:60]!r}.",) if hidden else ()
    return Bundle(name=name, files=tuple(members[member] for member in names), members=names, notes=notes)


def _looked_at(path: Path, shown: str) -> TraceFile:
    if path.stat().st_size == 0:
        raise InputError.of("empty_file", shown, "The unpacked file is empty.", "Check the recording.")
    return replace(TraceFile.of(str(path)), shown=shown)


@contextlib.contextmanager
def _decompressed(file: TraceFile, packed: IO[bytes]) -> Iterator[Any]:
    if compression(file) == "gzip":
        with gzip.GzipFile(fileobj=packed) as stream:
            yield stream
        return
    yield _Zstd(packed)


class _Zstd:
    """Reads the frames of a zstd file, one after the other. The library's own reader takes a cut-off file for whole."""

    def __init__(self, packed: IO[bytes]) -> None:
        import zstandard

        self._packed = packed
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
        self._frame: Any = None
        self._rest = b""

    def read(self, _size: int) -> bytes:
        """Return the next part, of any size; empty at the end."""
        while True:
            packed = self._rest or self._packed.read(ZSTD_READ_BYTES)
            self._rest = b""
            if not packed:
                if self._frame is not None:
                    raise EOFError("the last frame is cut off")
                return b""
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            data: bytes = self._frame.decompress(packed)
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
            if data:
                return data


def _copy(stream: Any, written: IO[bytes], file: TraceFile, limits: UnpackLimits) -> None:
    """Copy what `stream` gives, as far as it may."""
    total = 0
    while True:
        with guarded(file.name, *_damage()):
            chunk = stream.read(CHUNK_BYTES)
        if not chunk:
            return
        total += len(chunk)
        limits.check(file.size, total, file.name)
        try:
            written.write(chunk)
        except OSError as error:
            reason = error.strerror or "disk error"
            raise InputError.of(
                "cannot_unpack", file.name, f"There is no room to unpack it: {reason}.", "Set TMPDIR to a larger disk."
            ) from error


def _damage() -> tuple[type[Exception], ...]:
    import zstandard

    return (zstandard.ZstdError,)


def _checked_name(info: tarfile.TarInfo, name: str) -> str:
    """Return the name of a member, refusing what is no plain file inside the archive."""
    shown = info.name[:200].encode("utf-8", "replace").decode()
    if not info.isreg() or info.issparse():
        kind = "a sparse file" if info.issparse() else "a link" if info.issym() or info.islnk() else "no regular file"
        raise InputError.of("tar_member", f"{name}/{shown}", f"The member is {kind}.", "Pack plain files only.")
    parts = info.name.split("/")
    if info.name.startswith("/") or ".." in parts or "\\" in info.name or "\0" in info.name:
        raise InputError.of(
            "tar_name", f"{name}/{shown}", "The name leads out of the archive.", "Pack files with relative names."
        )
    return "/".join(part for part in parts if part not in ("", "."))


class _Bounded:
    """A file that refuses huge reads: a header may claim to be as long as it likes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes."""
        if not 0 <= size <= TAR_READ_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._stream.read(size)
