"""Consecutive tokens of a trace, with the optional columns that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.support.content import ByContent
from traces.support.errors import InputError
from traces.support.shown import as_text

__all__ = ["COLUMNS", "Batch", "IntArray", "as_column"]

IntArray = npt.NDArray[np.integer[Any]]

# Per-token columns beside `topk_ids`, with the dtype that they are held in.
COLUMNS: Mapping[str, str] = {
    "gate_weights": "float32",
    "seq_id": "int64",
    "token_pos": "int64",
    "phase": "uint8",
    "source_rank": "int32",
    "data_source": "int32",
}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Batch(ByContent):
    """Consecutive tokens of a trace.

    Attributes
    ----------
    topk_ids : (T, L, K) integers
        Logical experts of each token and layer; -1 where an entry is missing.
    rows : (T,) int64
        Row of each token in its source; stays with the token when a part of the trace is selected.
    gate_weights : (T, L, K) float, optional
        Router weights in the order of `topk_ids`.
    seq_id, token_pos : (T,) int64, optional
        Sequence of the token and its position there.
    phase : (T,) uint8, optional
        0 prefill, 1 decode.
    source_rank : (T,) int32, optional
        Data-parallel rank that owns the token; -1 unknown.
    data_source : (T,) int32, optional
        Data set, task or file that the token comes from, as a number of any choice.
    """

    topk_ids: IntArray
    rows: npt.NDArray[np.int64]
    gate_weights: npt.NDArray[np.floating[Any]] | None = None
    seq_id: IntArray | None = None
    token_pos: IntArray | None = None
    phase: IntArray | None = None
    source_rank: IntArray | None = None
    data_source: IntArray | None = None

    def __len__(self) -> int:
        return len(self.topk_ids)

    def __repr__(self) -> str:
        tokens, layers, top_k = self.topk_ids.shape
        present = [name for name in COLUMNS if getattr(self, name) is not None]
        rows = f"{self.rows[0]:,} to {self.rows[-1]:,}" if tokens else "none"
        return as_text(
            f"Batch of {tokens:,} tokens, {layers} MoE layers, top-{top_k} ({self.topk_ids.dtype})",
            [("rows", rows), ("columns", ", ".join(present) or "none")],
        )

    def select(self, index: npt.NDArray[Any] | slice) -> Batch:
        """Return the tokens that `index` (a mask, an index array or a slice) picks."""
        picked: dict[str, Any] = {
            item.name: None if (value := getattr(self, item.name)) is None else value[index] for item in fields(self)
        }
        return Batch(**picked)


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
