"""CSV tables of whole numbers: a header, then one row per line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from placement.exports.document import Document
from traces import InputError, Violations

__all__ = ["has_header", "read_numbers", "write_numbers"]

MAX_ROWS = 4_000_000
LONGEST = 18  # digits that fit 64 bits


def has_header(document: Document, header: Sequence[str]) -> bool:
    """Whether the first line names these columns, whatever their case."""
    first = document.start.removeprefix(b"\xef\xbb\xbf").splitlines()[:1]
    names = first[0].decode("utf-8", "replace").split(",") if first else []
    return [name.strip().lower() for name in names] == [name.lower() for name in header]


def read_numbers(document: Document, header: Sequence[str], found: Violations) -> npt.NDArray[np.int64]:
    """Return the rows below the header, (rows, columns); a row of another form is a violation."""
    rows: list[list[int]] = []
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(document.text)), start=1):
            if number == 1 or not any(cell.strip() for cell in cells):
                continue
            place = f"{document.name}#line {number}"
            plain = [cell.strip() for cell in cells]
            if len(plain) != len(header) or not all(_is_whole(cell) for cell in plain):
                detail = f"Expected {len(header)} whole numbers: {','.join(header)}."
                found.add("csv_row", place, detail, "Correct the line.")
            elif len(rows) == MAX_ROWS:
                found.add("too_many_rows", place, f"More than {MAX_ROWS} rows.", "Check the file.")
            else:
                rows.append([int(cell) for cell in plain])
                continue
            if len(found.found) >= 20 or len(rows) == MAX_ROWS:
                break
    except csv.Error as error:
        raise InputError.of("not_csv", document.name, f"This is not CSV: {error}.", "Check the file.") from error
    if not rows:
        found.add("csv_empty", document.name, "The table has no row.", "Check the file.")
    return np.array(rows, dtype=np.int64).reshape(-1, len(header))


def write_numbers(header: Sequence[str], rows: Iterable[Sequence[int]]) -> bytes:
    """Return a table as text."""
    lines = [",".join(header), *(",".join(map(str, row)) for row in rows), ""]
    return "\n".join(lines).encode()


def _is_whole(cell: str) -> bool:
    digits = cell.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= LONGEST
