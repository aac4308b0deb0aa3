"""Lines of numbers with commas, semicolons or tabs between: read in chunks, and what they are where no title says."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

from traces.decoding.files import TraceFile, guarded
from traces.formats.shared.matrices import MATRIX_BYTES, MAX_IDS, MAX_LAYERS
from traces.support.errors import InputError

__all__ = ["BOM", "WIDEST", "chunks_of", "delimiter_of", "grids_of", "is_grid", "parsed", "rows_of", "width_of"]

BOM = b"\xef\xbb\xbf"
CHUNK_BYTES = 4 << 20
LINE_BYTES = 4096
WIDEST = 6  # columns of a long table without titles
FEWEST, FULL = 6, 0.75  # lines, and share of all combinations, from which columns are taken for numbers of something
Rows = npt.NDArray[np.float64]


def delimiter_of(file: TraceFile) -> str:
    """Return what stands between the columns: semicolons where numbers are written with commas, or tabs."""
    first = file.head.removeprefix(BOM).split(b"\n", 1)[0]
    return next((mark for mark in (";", "\t") if mark.encode() in first.strip()), ",")


def width_of(file: TraceFile) -> int:
    """Return the columns of the first line."""
    return file.head.split(b"\n", 1)[0].count(delimiter_of(file).encode()) + 1


def chunks_of(file: TraceFile, *, skip: bool) -> Iterator[tuple[bytes, int]]:
    """Yield whole lines, a few megabytes at a time, and the number of the first one; `skip` leaves out the titles."""
    number = 1
    with file.open() as stream, guarded(file.name):
        if file.head.startswith(BOM):
            stream.seek(len(BOM))
        if skip:
            stream.readline(LINE_BYTES)
            number = 2
        while text := stream.read(CHUNK_BYTES):
            text += stream.readline(LINE_BYTES)
            if text.strip():
                yield text, number
            number += text.count(b"\n")


def parsed(
    lines: bytes, width: int, file: TraceFile, start: int, used: tuple[int, ...] | None = None
) -> npt.NDArray[np.float64]:
    """Return the `used` columns of lines of `width` columns, by default all, as an array.

    Raises
    ------
    InputError
        If a line is no row of numbers, or has other columns.
    """
    try:
        values = np.loadtxt(
            io.BytesIO(lines), delimiter=delimiter_of(file), comments=None, ndmin=2, usecols=used, quotechar='"'
        )
    except ValueError as error:
        place, detail = f"{file.name}#line {start} and on", f"A line is no row of numbers: {str(error)[:120]}."
        remedy = "Correct the line; leave out columns of names, and write decimals with a point."
        raise InputError.of("csv_line", place, detail, remedy) from error
    if used is None and values.shape[1] != width:
        detail = f"{values.shape[1]} columns, where {width} are expected."
        raise InputError.of("csv_line", f"{file.name}#line {start}", detail, "Give every line the same columns.")
    return values


def rows_of(file: TraceFile, *, skip: bool = False) -> Rows | None:
    """Return all lines as rows; None if they are too many, too wide for a long table, or no numbers."""
    width = width_of(file)
    if file.size > MATRIX_BYTES or width > WIDEST:
        return None
    parts: list[Rows] = []
    count = 0
    try:
        for lines, start in chunks_of(file, skip=skip):
            parts.append(parsed(lines, width, file, start))
            count += len(parts[-1])
            if count > MAX_LAYERS * MAX_IDS:
                return None
    except InputError:
        return None
    return np.concatenate(parts) if parts else None


def is_grid(layers: npt.NDArray[np.float64], experts: npt.NDArray[np.float64]) -> bool:
    """Whether they are all pairs of a layer and an expert from 0 on, once each."""
    if not (_ids(layers) and _ids(experts)):
        return False
    count = int(experts.max()) + 1
    keys = layers * count + experts
    return count > 1 and len(keys) == len(np.unique(layers)) * count == len(np.unique(keys))


def grids_of(rows: Rows) -> list[tuple[int, ...]]:
    """Return the columns that may number the lines, as those of a long table do: each of nearly all combinations once.

    Loads do not: few of them are alike, so that lines are few among their combinations.
    """
    if len(rows) < FEWEST:
        return []
    kinds = {column: len(np.unique(rows[:, column])) for column in range(rows.shape[1]) if _ids(rows[:, column])}
    numbers = [column for column, count in kinds.items() if 1 < count < len(rows)]
    found = []
    for size in range(2, rows.shape[1]):
        for columns in combinations(numbers, size):
            most = int(np.prod([kinds[column] for column in columns]))
            if FULL * most <= len(rows) <= most and len(np.unique(rows[:, columns], axis=0)) == len(rows):
                found.append(columns)
    return found


def _ids(column: npt.NDArray[np.float64]) -> bool:
    return bool(np.isfinite(column).all() and column.min() >= 0 and column.max() < MAX_IDS) and bool(
        (column == np.rint(column)).all()
    )
