"""The pages of a Parquet file, looked at before the library reads them: it takes as much memory as their headers say.

References
----------
https://parquet.apache.org/docs/file-format/data-pages/; headers are structs of Thrift's compact protocol.
"""

from __future__ import annotations

from typing import IO, Any

from traces.decoding.unpacking import UnpackLimits
from traces.support.errors import InputError

__all__ = ["check_pages"]

HEADER_BYTES = 64 << 10
PAGE_BYTES = 256 << 20
MAX_NESTED = 16
UNCOMPRESSED, COMPRESSED = 2, 3  # fields of PageHeader


def check_pages(stream: IO[bytes], metadata: Any, limits: UnpackLimits, size: int, name: str) -> None:
    """Refuse a file whose pages claim more than the file and the limits have room for.

    Parameters
    ----------
    stream : binary file
    metadata : pyarrow.parquet.FileMetaData
    limits : UnpackLimits
    size : int
        Bytes of the file.
    name : str
        What errors point at.

    Raises
    ------
    InputError
    """
    total = 0
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            place = f"{name}#/{chunk.path_in_schema[:60]}, row group {group}"
            start = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
            end = start + chunk.total_compressed_size
            if not 0 < start <= end <= size:
                raise _damaged(place, "a column lies outside of the file")
            while start < end:
                stream.seek(start)
                length, unpacked, packed = _header(stream.read(min(HEADER_BYTES, end - start)), place)
                start += length + packed
                if packed < 0 or unpacked < 0 or start > end:
                    raise _damaged(place, "a page reaches beyond its column")
                if max(unpacked, packed) > PAGE_BYTES:
                    raise InputError.of(
                        "page_too_large", place, f"A page of {unpacked} bytes.", "Write pages of about 1 MB."
                    )
                total += unpacked
                limits.check(size, total, name)


def _damaged(place: str, what: str) -> InputError:
    return InputError.of("damaged_file", place, f"The file is damaged: {what}.", "Copy or record it again.")


def _header(data: bytes, place: str) -> tuple[int, int, int]:
    """Return the length of a page header, and the bytes of the page unpacked and packed."""
    parser = _Compact(data)
    try:
        fields = parser.struct()
        return parser.position, fields[UNCOMPRESSED], fields[COMPRESSED]
    except (IndexError, KeyError) as error:
        raise _damaged(place, "a page has no valid header") from error


class _Compact:
    """Steps over a struct of the compact protocol, and keeps its own integers; IndexError where it makes no sense."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            part = self.byte()
            value |= (part & 0x7F) << shift
            if part < 0x80:
                return value
        raise IndexError

    def zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def struct(self, depth: int = 0) -> dict[int, int]:
        fields: dict[int, int] = {}
        number = 0
        if depth > MAX_NESTED:
            raise IndexError
        while (head := self.byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self.zigzag()
            kind = head & 0x0F
            if kind in (4, 5, 6):
                fields[number] = self.zigzag()
            else:
                self.skip(kind, depth, alone=False)
        return fields

    def skip(self, kind: int, depth: int, *, alone: bool = True) -> None:
        """Step over a value; `alone` is false for a field, whose booleans are in its head."""
        if kind in (1, 2):
            self.position += alone
        elif kind == 3:
            self.position += 1
        elif kind in (4, 5, 6):
            self.varint()
        elif kind == 7:
            self.position += 8
        elif kind == 8:
            length = self.varint()
            self.position += length
        elif kind in (9, 10):
            head = self.byte()
            count = head >> 4 if head >> 4 < 15 else self.varint()
            for _ in range(count):
                self.skip(head & 0x0F, depth + 1)
                if self.position > len(self.data):
                    raise IndexError
        elif kind == 12:
            self.struct(depth + 1)
        else:
            raise IndexError
