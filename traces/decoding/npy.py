"""The NumPy array format, read row by row without ever unpickling.

References
----------
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from traces.decoding.files import TraceFile, guarded
from traces.support.errors import InputError

__all__ = ["MAGIC", "ArrayHeader", "ArrayStream", "open_npy"]

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 65_536
PLAIN_DTYPE = re.compile(r"[<>|=][biufU]\d{1,9}")


@dataclass(frozen=True, kw_only=True)
class ArrayHeader:
    """Type and shape of a stored array, `header_bytes` before its data."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    header_bytes: int

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry of the first axis."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    @property
    def data_bytes(self) -> int:
        """Bytes of the data."""
        return self.dtype.itemsize * math.prod(self.shape)

    @classmethod
    def read(cls, stream: IO[bytes], size: int, place: str) -> ArrayHeader:
        """Parse the header at the start of `stream`, whose whole length must be `size` bytes."""
        with guarded(place, SyntaxError, TypeError, RecursionError):
            start = stream.read(8)
            if start[:6] != MAGIC or len(start) < 8 or start[6] not in (1, 2, 3):
                raise _bad(place, "this is not an array in NumPy's format")
            width = 2 if start[6] == 1 else 4
            length = int.from_bytes(stream.read(width), "little")
            if length > MAX_HEADER_BYTES:
                raise _bad(place, f"a header of {length} bytes")
            text = stream.read(length)
            if len(text) < length:
                raise _bad(place, "the header is cut off")
            fields = ast.literal_eval(text.decode("utf-8" if start[6] == 3 else "latin-1").strip())
            if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
                raise _bad(place, "the header lacks a field or has one too many")
            header = cls(
                dtype=_dtype(fields["descr"], place),
                shape=_shape(fields["shape"], place),
                header_bytes=8 + width + length,
            )
        if header.header_bytes + header.data_bytes != size:
            raise _bad(
                place,
                f"shape {header.shape} of {header.dtype} doesn't match the {size - header.header_bytes} bytes of data",
            )
        if fields["fortran_order"] is not False and header.ndim > 1:
            raise InputError.of(
                "fortran_order", place, "The array is stored column by column.", "Save numpy.ascontiguousarray(array)."
            )
        return header


class ArrayStream:
    """Reads an array from its first row to its last; every batch is a fresh array."""

    def __init__(self, stream: IO[bytes], size: int, place: str) -> None:
        self.header = ArrayHeader.read(stream, size, place)
        self._stream = stream
        self._place = place

    def rows(self, count: int) -> npt.NDArray[Any]:
        """Return the next `count` rows, (count, ...), in native byte order."""
        return self._take(count * self.header.row_bytes).reshape(count, *self.header.shape[1:])

    def values(self, count: int, buffer: bytearray | None = None) -> npt.NDArray[Any]:
        """Return the next `count` single values, (count,): parts of rows that are too long to be held.

        With a buffer, which is made as large as it has to be, they are in it, and gone at the next call.
        """
        return self._take(count * self.header.dtype.itemsize, buffer)

    def whole(self) -> npt.NDArray[Any]:
        """Return the entire array, which must be small."""
        return self._take(self.header.data_bytes).reshape(self.header.shape)

    def batches(self, rows: int) -> Iterator[npt.NDArray[Any]]:
        """Yield the array in parts of at most `rows` rows."""
        total = self.header.shape[0]
        for start in range(0, total, rows):
            yield self.rows(min(rows, total - start))

    def _take(self, size: int, buffer: bytearray | None = None) -> npt.NDArray[Any]:
        with guarded(self._place):
            data = self._stream.read(size) if buffer is None else self._read_into(buffer, size)
            if len(data) != size:
                raise _bad(self._place, f"{size - len(data)} bytes of data are missing")
            dtype = self.header.dtype
            # The copy makes the array writeable: compiled loops would be compiled again for read-only arrays.
            return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=buffer is None)

    def _read_into(self, buffer: bytearray, size: int) -> memoryview:
        buffer.extend(bytes(max(0, size - len(buffer))))
        view, count = memoryview(buffer)[:size], 0
        while count < size and (more := self._stream.readinto(view[count:])):  # type: ignore[attr-defined]  # of files
            count += more
        return view[:count]


def open_npy(file: TraceFile, stream: IO[bytes]) -> ArrayStream:
    """Return the array of a `.npy` file that is open as `stream`."""
    return ArrayStream(stream, file.size, file.name)


def _bad(place: str, what: str) -> InputError:
    return InputError.of("damaged_file", place, f"The array is cut off or damaged: {what}.", "Copy or record it again.")


def _dtype(descr: Any, place: str) -> np.dtype[Any]:
    if isinstance(descr, str) and PLAIN_DTYPE.fullmatch(descr):
        return np.dtype(descr)
    if descr == "|O":
        raise InputError.of(
            "object_array",
            place,
            "The array holds pickled Python objects, which are never loaded.",
            "Save plain numbers.",
        )
    raise InputError.of("array_dtype", place, f"Type {descr!r:.40} is not a plain number type.", "Save plain numbers.")


def _shape(shape: Any, place: str) -> tuple[int, ...]:
    if isinstance(shape, tuple) and len(shape) <= 8 and all(type(n) is int and 0 <= n < 1 << 62 for n in shape):
        return shape
    raise _bad(place, f"shape {shape!r:.40}")
