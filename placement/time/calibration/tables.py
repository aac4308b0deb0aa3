"""Tables of measurements: which schema a file has, and its columns."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from traces import InputError, Violations

__all__ = ["DTYPES", "Columns", "Kind", "gpu_of", "kind_of", "read_table"]

Columns = Mapping[str, npt.NDArray[Any]]
Kind = Literal["experts", "deepep_normal", "deepep_low_latency", "moe_a2a", "nvlink_alltoall", "collective"]

SHAPE = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_ep_size")
# The columns that tell a schema, and that it must have.
SCHEMAS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "deepep_normal": ("node_num", "num_token", "hidden_size", "dispatch_transmit_us", "combine_transmit_us"),
    "deepep_low_latency": ("node_num", "num_token", "hidden_size", "dispatch_avg_t_us", "combine_avg_t_us"),
    "moe_a2a": ("comm_backend", "phase", "ep_size", "node_num", "num_tokens", "hidden_size", "latency"),
    "collective": ("num_gpus", "message_size", "op_name", "latency"),
    "experts": ("latency", *SHAPE),
    "nvlink_alltoall": ("kernel_source", "op_name", "num_tokens", "moe_ep_size", "latency", "moe_dtype", "topk"),
}
SIZES: Final = frozenset(
    (*SHAPE, "node_num", "num_token", "num_topk", "num_gpus", "message_size", "ep_size", "num_slots", "moe_tp_size")
)
OTHERS: Final = frozenset(  # numbers that may be 0
    ("sms", "dispatch_sms", "combine_sms", "dispatch_notify_us", "combine_notify_us", "rank0_num_tokens", "rows")
)
DTYPES: Final[Mapping[str, str]] = {
    "bfloat16": "bfloat16",
    "float16": "float16",
    "fp8": "fp8",
    "fp8_block": "fp8_block",
    "nvfp4": "nvfp4",
    "int4_wo": "int4",
    "w4afp8": "int4",
    "w4a16_mxfp4": "mxfp4",
    "w4a8_mxfp4_mxfp8": "mxfp4",
    "int8_wo": "int8",
}
DEVICES: Final = (
    ("gb300", "gb300"),
    ("gb200", "gb200"),
    ("b300", "b300"),
    ("b200", "b200"),
    ("h200", "h200"),
    ("h100", "h100"),
    ("h800", "h800"),
    ("h20", "h20"),
    ("a100", "a100"),
    ("l40s", "l40s"),
    ("mi300", "mi300x"),
    ("mi355", "mi355x"),
    ("910b", "ascend-910b"),
    ("rtx pro 6000", "rtx-pro-6000"),
)


def gpu_of(device: str) -> str:
    """Return our name of a device such as ``NVIDIA H200``; the text itself, in small letters, where none is known."""
    text = str(device).lower()
    return next((name for word, name in DEVICES if word in text), text)


def read_table(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """Read a Parquet or CSV file into columns.

    Raises
    ------
    InputError
        If it can't be read, or pyarrow is missing for Parquet.
    """
    name = str(path)
    if not Path(name).is_file():
        raise InputError.of("no_such_file", name, "There is no such file.", "Name a table of measurements.")
    if name.endswith(".csv"):
        return _read_csv(name)
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        remedy = 'Run: pip install "moe-placement[calibrate]"'
        raise InputError.of("no_calibrate_extra", name, "Parquet needs pyarrow, which is missing.", remedy) from None
    try:
        table = parquet.read_table(name)
    except (ArrowException, OSError) as error:
        raise InputError.of(
            "not_parquet", name, f"This is no Parquet file: {str(error)[:120]}", "Name a .parquet or .csv file."
        ) from None
    return {column: np.asarray(table[column].to_pylist()) for column in table.column_names}


def _read_csv(name: str) -> dict[str, npt.NDArray[Any]]:
    with Path(name).open(encoding="utf-8-sig", newline="") as stream:
        try:
            rows = list(csv.DictReader(stream, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError.of("not_csv", name, f"This is no CSV file: {error}", "Save it as UTF-8 CSV.") from None
    if not rows:
        raise InputError.of("zero_rows", name, "The table has no rows.", "Name a table of measurements.")
    found: dict[str, npt.NDArray[Any]] = {}
    for column in rows[0]:
        texts = [row[column] for row in rows]
        if column is None or any(text is None for text in texts):
            line = next(n for n, row in enumerate(rows, 2) if None in row or None in row.values())
            raise InputError.of("csv_width", f"{name}:{line}", "This row has another number of cells.", "Correct it.")
        found[column] = _numbers(texts)
    return found


def _numbers(texts: list[str]) -> npt.NDArray[Any]:
    for kind in (np.int64, np.float64):
        try:
            return np.array(texts, dtype=kind)
        except ValueError:
            continue
    try:  # cells that are empty, as None
        return np.array([float(text) if text.strip() else None for text in texts], dtype=object)
    except ValueError:
        return np.array(texts)


def kind_of(columns: Columns, place: str) -> Kind:
    """Return which schema a table has, after checking that times are times and sizes are sizes.

    Raises
    ------
    InputError
        If it has none that is known, no row, a time that is not a number above 0, or a size that is no whole one.
    """
    kind = next((kind for kind, needed in SCHEMAS.items() if all(name in columns for name in needed)), None)
    if kind is None:
        remedy = "See docs/time.md for the columns of each kind of table."
        raise InputError.of("unknown_table", place, f"Columns {', '.join(columns)[:160]} are no known table.", remedy)
    needed = SCHEMAS[kind]
    if not len(next(iter(columns.values()))):
        raise InputError.of("zero_rows", place, "The table has no rows.", "Name a table of measurements.")
    found = Violations()
    for name, values in columns.items():
        at = f"{place}#/{name}"
        if name in needed and (name == "latency" or name.endswith("_us")):
            if (row := _first_bad(values, np.nextafter(0, 1))) is not None:
                detail = f"Row {row} has {values[row : row + 1].tolist()[0]!r:.40}, which is no time above 0."
                found.add("time_value", at, detail, "Leave out rows without a measurement.")
        elif name in SIZES:
            if (row := _first_bad(values, 1, whole=True)) is not None:
                detail = f"Row {row} has {values[row : row + 1].tolist()[0]!r:.40}: sizes are whole numbers above 0."
                found.add("size_value", at, detail, "Correct them, or leave out such rows.")
        elif name in OTHERS and (row := _first_bad(values, 0)) is not None:
            detail = f"Row {row} has {values[row : row + 1].tolist()[0]!r:.40}, which is no number from 0 on."
            found.add("number_value", at, detail, "Correct them, or leave out such rows.")
    found.raise_if_any()
    return kind


def _first_bad(values: npt.NDArray[Any], least: float, *, whole: bool = False) -> int | None:
    """Return the first row that is no finite number from `least` on; None without one."""
    if values.dtype.kind in "fiu":
        good = np.isfinite(values) & (values >= least)
        if whole and values.dtype.kind == "f":  # as programs write whole numbers where cells are missing
            good &= np.mod(np.where(good, values, 0), 1) == 0
    else:  # a cell that is empty makes objects of a column, or texts
        good = np.array(
            [
                isinstance(value, int | float) and least <= value < np.inf and not (whole and value % 1)
                for value in values.tolist()
            ]
        )
    return None if good.all() else int(np.flatnonzero(~good)[0])
