"""A trace file: opened again for every pass, the same bytes each time, and damage reported as bad input."""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from io import BufferedReader
from pathlib import Path

from traces.support.errors import InputError

__all__ = ["TraceFile", "guarded", "tokens_per_batch"]

HEAD_BYTES = 4096
BATCH_BYTES = 32 << 20  # bounds the memory of a batch when a token has many layers
ROW_BYTES = 64 << 20

# What the standard library raises on damaged zip, deflate and text.
DAMAGE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    MemoryError,
)


@dataclass(frozen=True, kw_only=True)
class TraceFile:
    """A regular, non-empty file whose content is pinned by its size and time of change.

    Attributes
    ----------
    path : Path
    head : bytes
        The first bytes, for sniffing.
    size : int
        Bytes.
    shown : str or None
        What errors call it, where that is not the path's own name: a file that was unpacked from an archive.
    holder : object
        Kept alive as long as the file is: the temporary folder that it was unpacked to.
    """

    path: Path
    head: bytes = field(repr=False)
    size: int
    changed_ns: int
    shown: str | None = None
    holder: object = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """File name, the first part of every place in an error."""
        return self.path.name if self.shown is None else self.shown

    @classmethod
    def of(cls, path: str | Path) -> TraceFile:
        """Look at `path`; InputError if there is no readable, non-empty regular file."""
        target = Path(path)
        try:
            status = target.stat()
            if str(target) == ".":
                raise InputError.of(
                    "is_a_folder",
                    str(path),
                    "The name is empty, or is the current folder.",
                    "Name a single trace file.",
                )
            if stat.S_ISDIR(status.st_mode):
                raise InputError.of("is_a_folder", str(target), "This is a folder.", "Name a single trace file.")
            if not stat.S_ISREG(status.st_mode):
                raise InputError.of(
                    "not_a_file",
                    str(target),
                    "A trace is read several times, which needs a regular file.",
                    "Copy it first.",
                )
            with target.open("rb") as file:
                head = file.read(HEAD_BYTES)
        except InputError:
            raise
        except FileNotFoundError as error:
            raise _missing(target) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError.of(
                "cannot_read", str(target), f"Can't read it: {reason}.", "Check the path and its rights."
            ) from error
        if not head:
            raise InputError.of("empty_file", str(target), "The file is empty.", "Check the recording.")
        return cls(path=target, head=head, size=status.st_size, changed_ns=status.st_mtime_ns)

    def check_unchanged(self) -> None:
        """Refuse a file that is gone or no longer the one that was looked at."""
        now = TraceFile.of(self.path)
        if (now.size, now.changed_ns) != (self.size, self.changed_ns):
            raise InputError.of("file_changed", self.name, "The file changed since it was opened.", "Load it again.")

    def open(self) -> BufferedReader:
        """Open the file for a pass, if it is unchanged."""
        self.check_unchanged()
        return self.path.open("rb")

    def sha256(self) -> str:
        """Return the SHA-256 of the content, as hexadecimal digits."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(target: Path) -> InputError:
    """Return the error for a file that is not there, with the name that comes closest."""
    try:
        near = get_close_matches(target.name, [entry.name for entry in target.parent.iterdir()], n=1)
    except OSError:
        detail = f"There is no such file, nor its folder {str(target.parent)!r}."
        return InputError.of("file_missing", str(target), detail, "Check the path.")
    remedy = f"Did you mean {near[0]!r}?" if near else "Check the path."
    return InputError.of("file_missing", str(target), "There is no such file.", remedy)


@contextmanager
def guarded(place: str, *also: type[Exception]) -> Iterator[None]:
    """Turn what decoders raise on damaged bytes into an InputError at `place`.

    Parameters
    ----------
    place : str
    *also : exception types
        Raised by a decoder beyond those of the standard library.
    """
    try:
        yield
    except InputError:
        raise
    except DAMAGE + also as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InputError.of(
            "damaged_file", place, f"The file is cut off or damaged: {reason.rstrip('.')}.", "Copy or record it again."
        ) from error


def tokens_per_batch(max_tokens: int, row_bytes: int, place: str) -> int:
    """Return how many tokens of `row_bytes` bytes to read at once, at most `max_tokens`."""
    if row_bytes > ROW_BYTES:
        raise InputError.of(
            "row_too_large",
            place,
            f"One token takes {row_bytes} bytes.",
            "Check the order of the axes (tokens, layers, top-k).",
        )
    return max(1, min(max_tokens, BATCH_BYTES // max(row_bytes, 1)))
