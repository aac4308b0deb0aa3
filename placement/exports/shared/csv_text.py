"""CSV tables of whole numbers: a header, then one row per line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement.exports.shared.document import Document
from traces import InputError, Violations

__all__ = ["Numbers", "has_header", "read_numbers", "write_numbers"]

MAX_ROWS = 4_000_000
LONGEST = 18  # digits that fit 64 bits


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The rows of a table.

    Attributes
    ----------
    values : (R, C) int64
    lines : (R,) int64
        Line of each row in the file, from 1, for errors.
    name : str
        Of the file.
    """

    values: npt.NDArray[np.int64]
    lines: npt.NDArray[np.int64]
    name: str

    def place(self, row: int) -> str:
        """Return the pointer to a row."""
        return f"{self.name}#line {self.lines[row]}"


def has_header(document: Document, header: Sequence[str]) -> bool:
    """Whether the first line names these columns, whatever their case."""
    first = document.start.removeprefix(b"\xef\xbb\xbf").splitlines()[:1]
    names = first[0].decode("utf-8", "replace").split(",") if first else []
    return [name.strip().lower() for name in names] == [name.lower() for name in header]


def read_numbers(document: Document, header: Sequence[str], found: Violations) -> Numbers:
    """Return the rows below the header; a row of another form is a violation."""
    rows: list[list[int]] = []
    lines: list[int] = []
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
                lines.append(number)
                continue
            if len(found.found) >= 20 or len(rows) == MAX_ROWS:
                break
    except csv.Error as error:
        raise InputError.of("not_csv", document.name, f"This is not CSV: {error}.", "Check the file.") from error
    if not rows:
        found.add("csv_empty", document.name, "The table has no row.", "Check the file.")
    values = np.array(rows, dtype=np.int64).reshape(-1, len(header))
    return Numbers(values=values, lines=np.array(lines, dtype=np.int64), name=document.name)


def write_numbers(header: Sequence[str], rows: Iterable[Sequence[int]]) -> bytes:
    """Return a table as text."""
    lines = [",".join(header), *(",".join(map(str, row)) for row in rows), ""]
    return "\n".join(lines).encode()


def _is_whole(cell: str) -> bool:
    digits = cell.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= LONGEST
