"""EPLB's weight matrix (layers, experts), as `.npy`, JSON or CSV: loads without token identity.

References
----------
https://github.com/deepseek-ai/EPLB, ``rebalance_experts(weight, ...)``.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.counts import LoadCounts
from traces.decoding.files import TraceFile, guarded
from traces.decoding.npy import MAGIC, open_npy
from traces.formats.hints import Hints
from traces.formats.llama_csv import is_pairs
from traces.formats.long_csv import is_long
from traces.formats.reader import Reader
from traces.formats.shared.count_rows import counts_of_rows
from traces.formats.shared.csv_lines import BOM, delimiter_of
from traces.formats.shared.matrices import MATRIX_BYTES, MAX_LAYERS, npy_kind
from traces.support.errors import InputError

__all__ = ["READER"]

CSV_START = re.compile(rb"\s*[-+.\d][-+.\deE]*[ ]*[,;\t]")
# Titles that number the experts, behind one of the layers or none.
WIDE = re.compile(r'[\w ."]*(?P<mark>[,;\t])("?(expert|e)?[_ ]?\d+"?(?P=mark)?){2,}', re.IGNORECASE)


def sniff(file: TraceFile) -> bool:
    """Recognise a `.npy` of counts, a JSON list of lists, or lines of numbers, or titles that number experts."""
    if file.head.startswith(MAGIC):
        return npy_kind(file) == "eplb"
    # A list of objects is the response of an engine.
    if re.match(rb"\s*\[(?!\s*\{)", file.head) is not None:
        return True
    first = file.head.removeprefix(BOM).split(b"\n", 1)[0]
    if first.isascii() and not CSV_START.match(first) and WIDE.fullmatch(first.decode().strip(" \r")):
        return True
    return CSV_START.match(first) is not None and not is_pairs(file) and not is_long(file)


def open_eplb(file: TraceFile, hints: Hints) -> LoadCounts:
    """Read the whole matrix, which is small."""
    if file.size > MATRIX_BYTES:
        raise InputError.of("too_large", file.name, f"A weight matrix of {file.size} bytes?", "Check the file.")
    load = _read_npy(file) if file.head.startswith(MAGIC) else _read_text(file)
    notes: tuple[str, ...] = ()
    if load.ndim == 3 and len(load):
        checked = np.isfinite(load).all() and load.min(initial=0) >= 0
        if not checked:
            detail = "A count is negative, NaN or infinite."
            raise InputError.of("load_not_finite", file.name, detail, "Correct the counts.")
        notes, load = (f"Counts of {len(load)} steps were summed.",), load.sum(axis=0)
    if load.ndim != 2 or len(load) > MAX_LAYERS:
        raise InputError.of(
            "load_shape", file.name, f"Shape {load.shape} is not (layers, experts).", "Give one row per MoE layer."
        )
    return counts_of_rows(file, hints, "eplb", load, notes, usual="moe")


def _read_npy(file: TraceFile) -> npt.NDArray[np.float64]:
    with file.open() as stream:
        array = open_npy(file, stream)
        if array.header.dtype.kind not in "iuf":
            raise InputError.of("load_dtype", file.name, f"Loads can't be {array.header.dtype}.", "Save plain numbers.")
        return array.whole().astype(np.float64)


def _read_text(file: TraceFile) -> npt.NDArray[np.float64]:
    with guarded(file.name, RecursionError), file.open() as stream:
        text = stream.read().decode("utf-8-sig")
        rows = _json_rows(text, file.name) if text.lstrip().startswith("[") else _csv_rows(text, file)
        if not rows:
            raise InputError.of("load_shape", file.name, "There is no row.", "Give one row per MoE layer.")
        uneven = next((number for number, row in enumerate(rows) if len(row) != len(rows[0])), None)
        if uneven is not None:
            place = f"{file.name}#/{uneven}" if text.lstrip().startswith("[") else f"{file.name}#line {uneven + 1}"
            detail = f"{len(rows[uneven])} entries, where the first row has {len(rows[0])}."
            raise InputError.of("load_shape", place, detail, "Give every layer all experts.")
        return np.array(rows, dtype=np.float64)


def _json_rows(text: str, place: str) -> list[list[Any]]:
    rows = json.loads(text)
    if not all(isinstance(row, list) and all(type(value) in (int, float) for value in row) for row in rows):
        raise InputError.of("load_shape", place, "Expected a list of lists of numbers.", "Give one list per MoE layer.")
    return list(rows)


def _csv_rows(text: str, file: TraceFile) -> list[list[Any]]:
    rows = []
    mark = delimiter_of(file)
    for number, line in enumerate(text.rstrip().splitlines(), start=1):
        try:
            rows.append([float(value) for value in line.split(mark)])
        except ValueError as error:
            raise InputError.of(
                "load_text",
                f"{file.name}#line {number}",
                f"Not a row of numbers: {line:.60}",
                "Leave out titles and names: a row of loads per layer, and nothing else.",
            ) from error
    as_is = "If they are loads, save the matrix as .npy or .json."
    if len(rows) > 1 and len(rows[0]) > 1 and _numbers(rows[0]):
        raise InputError.of(
            "load_text",
            f"{file.name}#line 1",
            "The first row numbers the experts, one after the other: titles, as tables are saved with, and no loads.",
            f"Leave out titles. {as_is}",
        )
    if len(rows) > 2 and len(rows[0]) > 2 and _numbers([row[0] for row in rows if row]):
        raise InputError.of(
            "load_text",
            f"{file.name}#column 1",
            "The first column numbers the rows, one after the other: layers, as tables are saved with, and no loads.",
            f"Leave out the column. {as_is}",
        )
    return rows


def _numbers(values: list[float]) -> bool:
    """Whether values count from 0, or, where they are more than three, from 1."""
    return values == list(range(len(values))) or (len(values) > 3 and values == list(range(1, len(values) + 1)))


READER = Reader(
    name="eplb",
    content="weight matrix (layers, experts) as .npy, .json or .csv; loads only",
    sniff=sniff,
    open=open_eplb,
)
