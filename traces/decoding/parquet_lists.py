"""List columns of Parquet as arrays: flat lists [L*K], or nested lists [L][K] that may be ragged in K."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.decoding.files import guarded
from traces.support.errors import InputError

__all__ = ["Layout", "Lists", "numbers", "padded", "unnest"]


@dataclass(frozen=True, kw_only=True)
class Lists:
    """A list column of some rows.

    Attributes
    ----------
    values : (N,) numbers
        The innermost values of all rows.
    outer : (T,) int64
        Length of each row's list.
    inner : (sum(outer),) int64 or None
        Lengths of the nested lists; None for flat lists.
    """

    values: npt.NDArray[Any]
    outer: npt.NDArray[np.int64]
    inner: npt.NDArray[np.int64] | None

    def check_like(self, other: Lists, place: str) -> None:
        """Refuse lists whose lengths differ from those of `other`."""
        same_inner = (self.inner is None) == (other.inner is None) and (
            self.inner is None or np.array_equal(self.inner, np.asarray(other.inner))
        )
        if not (np.array_equal(self.outer, other.outer) and same_inner):
            raise InputError.of("column_shape", place, "List lengths differ from topk_ids.", "Give one weight per id.")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The axes that lists fold to."""

    num_layers: int
    top_k: int

    @classmethod
    def settle(
        cls, place: str, *, top_k: int | None, num_layers: int | None, parts: Callable[[], Iterable[Lists]]
    ) -> Layout:
        """Find L and K from what is stated, or else from all `parts` of the column."""
        if top_k is not None and num_layers is not None:
            found_layers, found_k = num_layers, top_k
        else:
            found_layers = found_k = 0
            for lists in parts():
                if not len(lists.outer):
                    continue
                width = int(lists.outer[0])
                if lists.inner is not None:
                    found_layers = found_layers or width
                    found_k = max(found_k, int(lists.inner.max(initial=0)))
                    continue
                if top_k is None and num_layers is None:
                    raise InputError.of(
                        "layout_unknown",
                        f"{place}#/topk_ids",
                        f"A flat list of {width} ids doesn't say how many layers it holds.",
                        "Give `layer_ids`, or the schema metadata top_k and layer_ids.",
                    )
                found_layers = num_layers or width // max(top_k or 1, 1)
                found_k = top_k or width // max(found_layers, 1)
                break
            found_layers, found_k = num_layers or found_layers, top_k or found_k
        if found_layers < 1 or found_k < 1:
            raise InputError.of("zero_tokens", place, "There is no token with an expert.", "Check the recording.")
        return cls(num_layers=found_layers, top_k=found_k)


def numbers(column: Any, place: str, start: int, lengths: Sequence[npt.NDArray[np.int64]] = ()) -> npt.NDArray[Any]:
    """Return a column of plain numbers, refusing nulls.

    Parameters
    ----------
    column : pa.Array
    place : str
    start : int
        Row of the first entry.
    lengths : sequence of (n,) int64
        Lengths of the lists that the column was taken out of, outermost first.
    """
    import pyarrow as pa

    _refuse_nulls(column, place, start, lengths)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InputError.of("column_dtype", place, f"Expected numbers; got {column.type}.", "Convert the column.")
    with guarded(place, pa.ArrowException):
        # A copy, as compiled loops would be compiled again for arrays that can't be written.
        return np.array(column.to_numpy(zero_copy_only=False))


def unnest(column: Any, place: str, start: int) -> Lists:
    """Take a list column apart, refusing nulls at every level."""
    import pyarrow as pa

    lengths: list[npt.NDArray[np.int64]] = []
    with guarded(place, pa.ArrowException):
        while _is_list(column.type):
            _refuse_nulls(column, place, start, lengths)
            if pa.types.is_fixed_size_list(column.type):
                lengths.append(np.full(len(column), column.type.list_size, np.int64))
            else:
                lengths.append(np.diff(column.offsets.to_numpy()).astype(np.int64))
            column = column.flatten()
    if len(lengths) not in (1, 2):
        raise InputError.of(
            "nesting", place, f"Lists are {len(lengths)} deep.", "Use lists [L*K], or lists of lists [L][K]."
        )
    return Lists(
        values=numbers(column, place, start, lengths), outer=lengths[0], inner=lengths[1] if len(lengths) == 2 else None
    )


def padded(lists: Lists, layout: Layout, place: str, start: int, fill: int) -> npt.NDArray[Any]:
    """Fold lists to (T, L, K); short inner lists are padded with `fill`."""
    tokens, layers, top_k = len(lists.outer), layout.num_layers, layout.top_k
    expected = layers if lists.inner is not None else layers * top_k
    wrong = lists.outer != expected
    if lists.inner is not None and not wrong.any():
        wrong = (lists.inner.reshape(tokens, layers) > top_k).any(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError.of(
            "topk_ids_shape",
            f"{place}, row {start + row}",
            f"Expected {layers} layers with {'at most ' if lists.inner is not None else ''}{top_k} entries.",
            "Every row has the same layers.",
        )
    if lists.inner is None or (lists.inner == top_k).all():
        return lists.values.reshape(tokens, layers, top_k)
    dtype = np.result_type(lists.values.dtype, np.int8) if lists.values.dtype.kind != "u" else np.dtype(np.int64)
    folded = np.full((tokens * layers, top_k), fill, dtype)
    folded[np.arange(top_k) < lists.inner[:, np.newaxis]] = lists.values
    return folded.reshape(tokens, layers, top_k)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _refuse_nulls(column: Any, place: str, start: int, lengths: Sequence[npt.NDArray[np.int64]]) -> None:
    if column.null_count:
        entry = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        for level in reversed(lengths):
            entry = int(np.searchsorted(np.cumsum(level), entry, side="right"))
        raise InputError.of(
            "null", f"{place}, row {start + entry}", "A null where a value is needed.", "Drop such rows, or fill them."
        )
