"""The optional per-token columns of a trace, and the types that they are held in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.support.errors import InputError

__all__ = ["COLUMNS", "as_column"]

# Per-token columns beside `topk_ids`, with the dtype that they are held in.
COLUMNS: Mapping[str, str] = {
    "gate_weights": "float32",
    "seq_id": "int64",
    "token_pos": "int64",
    "phase": "uint8",
    "source_rank": "int32",
}


def as_column(name: str, values: npt.NDArray[Any], place: str = "") -> npt.NDArray[Any]:
    """Return `values` in the dtype of the column `name`, refusing those that would change.

    Parameters
    ----------
    name : str
        Key of `COLUMNS`.
    values : (T,) integers, or (T, L, K) floats for ``gate_weights``
    place : str
        What an error points at.

    Raises
    ------
    InputError
        If an integer does not fit, or the kind of the values is wrong.
    """
    dtype = np.dtype(COLUMNS[name])
    kinds = "f" if dtype.kind == "f" else "iu"
    if values.dtype.kind not in kinds:
        raise InputError.of(
            "column_dtype",
            f"{place}/{name}",
            f"Expected {'floats' if kinds == 'f' else 'integers'}; got dtype {values.dtype}.",
            "Convert the column.",
        )
    if dtype.kind != "f" and values.size and not np.can_cast(values.dtype, dtype):
        bounds = np.iinfo(dtype)
        low, high = int(values.min()), int(values.max())
        if low < bounds.min or high > bounds.max:
            raise InputError.of(
                f"{name}_range",
                f"{place}/{name}",
                f"Values from {low} to {high} don't fit {dtype.name}.",
                "Correct the column.",
            )
    with np.errstate(over="ignore"):  # a weight beyond float32 becomes infinite, which the batch check reports
        return values.astype(dtype, copy=False)
