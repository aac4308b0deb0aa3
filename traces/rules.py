"""The rules that every trace keeps, checked on each batch as it is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from traces.batch import Batch
from traces.provenance import Provenance
from traces.support.errors import InputError, Violations

__all__ = [
    "HasAxes",
    "as_layer_ids",
    "as_none",
    "check_batch",
    "check_columns",
    "check_ids_dtype",
    "check_ids_shape",
    "check_layout",
    "check_load_range",
    "report_entries",
]

MAX_EXPERTS = 32_767  # ids fit int16 wherever they are kept
SHOWN_ROWS = 5
LEAST_LOAD, MOST_LOAD = 1e-100, 1e100  # sums of a layer whose shares and squares neither vanish nor overflow


FILLERS = {255: "uint8", 65_535: "uint16"}


def as_none(ids: Collection[int], num_experts: int) -> str:
    """Say what ids beyond the routed experts are, most likely, and how to read them.

    Parameters
    ----------
    ids : collection of int
        Ids of `num_experts` and above.
    num_experts : int
    """
    fillers = sorted(set(ids) & FILLERS.keys())
    others = sorted(set(ids) - FILLERS.keys())
    said = [f"{value} is what -1 becomes in {FILLERS[value]}: filler, where there is no expert." for value in fillers]
    if others == [num_experts]:
        said.append(f"{num_experts} may be a shared expert that is fused with the routed ones, or ids count from 1.")
    elif others:
        said.append(
            f"Ids from {num_experts} on may be shared experts that are fused with the routed ones, or zero-computation "
            "experts, such as LongCat-Flash has."
        )
    return " ".join([*said, "`ids_beyond_experts` none reads them as no routed expert."])


def as_layer_ids(layer_ids: npt.ArrayLike, num_layers: int) -> npt.NDArray[np.int64]:
    """Return `layer_ids` as (L,) int64, refusing another length or a non-integer type."""
    array = np.asarray(layer_ids)
    if array.shape != (num_layers,) or (array.size and array.dtype.kind not in "iu"):
        raise InputError.of(
            "layer_ids_shape",
            "/layer_ids",
            f"Expected {num_layers} integers, one per MoE layer; got shape {array.shape}, dtype {array.dtype}.",
            "Name the model layer of each layer axis entry.",
        )
    return array.astype(np.int64)


def check_layout(found: Violations, layer_ids: npt.NDArray[np.int64], num_experts: int, top_k: int) -> None:
    """Check the axes of a trace or profile: L >= 1, distinct rising layers, 1 <= K <= E."""
    if len(layer_ids) == 0:
        found.add("no_layers", "/layer_ids", "There is no MoE layer.", "Give at least one layer.")
    elif (np.diff(layer_ids) <= 0).any() or layer_ids[0] < 0:
        found.add(
            "layer_ids_order",
            "/layer_ids",
            f"Layer ids must rise and not be negative; got {layer_ids.tolist()}.",
            "List each MoE layer once, in the order of the model.",
        )
    if not 1 <= num_experts <= MAX_EXPERTS:
        found.add(
            "num_experts_range",
            "/num_experts",
            f"{num_experts} experts per layer.",
            f"Give a number between 1 and {MAX_EXPERTS}.",
        )
    elif not 1 <= top_k <= num_experts:
        found.add(
            "top_k_range",
            "/top_k",
            f"A token can't choose {top_k} different experts out of {num_experts}.",
            "Check the order of the axes (tokens, layers, top-k), and `num_experts`.",
        )


def check_load_range(found: Violations, load: npt.NDArray[np.float64], place: str) -> None:
    """Check that each layer of finite loads (L, E) sums to 0, or to what float64 can divide and square.

    Parameters
    ----------
    found : Violations
    load : (L, E) float64
    place : str
        What the number of a layer is appended to.
    """
    with np.errstate(over="ignore"):
        totals = load.sum(axis=1)
    outside = (totals > MOST_LOAD) | ((totals < LEAST_LOAD) & (totals > 0))
    for layer in np.flatnonzero(outside)[:SHOWN_ROWS]:
        found.add(
            "load_range",
            f"{place}{layer}",
            f"The loads of the layer sum to {totals[layer]:g}, not to between {LEAST_LOAD:g} and {MOST_LOAD:g}.",
            "Scale the whole matrix by a constant.",
        )


def check_ids_shape(shape: tuple[int, ...], dtype: np.dtype[Any], place: str = "") -> None:
    """Check the axes and dtype of a `topk_ids` array."""
    if len(shape) != 3:
        raise InputError.of(
            "topk_ids_shape",
            f"{place}/topk_ids",
            f"Expected three axes (tokens, layers, top-k); got shape {shape}.",
            "Add the missing axis explicitly: a top-1 trace has shape (T, L, 1).",
        )
    if 0 in shape[1:]:
        raise InputError.of(
            "topk_ids_shape",
            f"{place}/topk_ids",
            f"Shape {shape} has no layer, or no expert per token.",
            "Check the recording.",
        )
    check_ids_dtype(dtype, place)


def check_ids_dtype(dtype: np.dtype[Any], place: str = "") -> None:
    """Check that ids are integers."""
    if dtype.kind not in "iu":
        raise InputError.of(
            "topk_ids_dtype", f"{place}/topk_ids", f"Expected integer ids; got dtype {dtype}.", "Convert to integers."
        )


class Shaped(Protocol):
    """An array, or the header of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the entries."""


def check_columns(ids_shape: tuple[int, ...], columns: Mapping[str, Shaped], place: str = "") -> None:
    """Check that each column has one entry per token (`gate_weights`: one per id) and a numeric type."""
    found = Violations()
    for name, value in columns.items():
        expected = ids_shape if name == "gate_weights" else ids_shape[:1]
        if tuple(value.shape) != tuple(expected):
            found.add(
                "column_shape",
                f"{place}/{name}",
                f"Expected shape {tuple(expected)} to go with topk_ids {tuple(ids_shape)}; got {tuple(value.shape)}.",
                "Every column has one row per token.",
            )
        kinds = "f" if name == "gate_weights" else "iu"
        if value.dtype.kind not in kinds:
            found.add(
                "column_dtype",
                f"{place}/{name}",
                f"Expected {'floats' if kinds == 'f' else 'integers'}; got dtype {value.dtype}.",
                "Convert the column.",
            )
    found.raise_if_any()


class HasAxes(Protocol):
    """What a batch is checked against: a trace."""

    @property
    def layer_ids(self) -> npt.NDArray[np.int64]:
        """Model layers, (L,)."""

    @property
    def num_layers(self) -> int:
        """L."""

    @property
    def num_experts(self) -> int:
        """E."""

    @property
    def top_k(self) -> int:
        """K."""

    @property
    def provenance(self) -> Provenance:
        """Its source is named in errors."""


def check_batch(batch: Batch, trace: HasAxes) -> None:
    """Check ids, weights and the other columns of one batch against the trace's axes, but not for duplicates."""
    ids = batch.topk_ids
    place = trace.provenance.source
    if ids.shape[1:] != (trace.num_layers, trace.top_k):
        raise InputError.of(
            "topk_ids_shape",
            place,
            f"Rows have shape {ids.shape[1:]}; expected (layers, top-k) = {(trace.num_layers, trace.top_k)}.",
            "Every row has the same layers; pad missing entries with -1.",
        )
    check_ids_dtype(ids.dtype, f"{place}#")
    if not len(ids):
        return
    found = Violations()
    if ids.max() >= trace.num_experts or (ids.dtype.kind == "i" and ids.min() < -1):
        bad = (ids >= trace.num_experts) | (ids.astype(np.int64) < -1)
        remedy = "Correct `num_experts`, or check that `model` is the one that was recorded."
        beyond = np.unique(ids[ids >= trace.num_experts]).tolist()
        report_entries(
            found,
            "id_out_of_range",
            batch,
            bad,
            trace,
            f"must be below `num_experts` = {trace.num_experts}, or -1",
            f"{remedy} {as_none(beyond, trace.num_experts)}" if beyond else remedy,
        )
    weights = batch.gate_weights
    if weights is not None:
        missing = ids.astype(np.int64) < 0
        broken = ~np.isfinite(weights) | (weights < 0)
        if (broken & ~missing).any():
            report_entries(
                found,
                "gate_weight_not_finite",
                batch,
                broken & ~missing,
                trace,
                "has a gate weight that is NaN, infinite or negative",
                "Correct the column, or leave it out.",
            )
    if batch.phase is not None and ((phase := np.asarray(batch.phase)).min() < 0 or phase.max() > 1):
        row = int(batch.rows[np.argmax((phase < 0) | (phase > 1))])
        found.add(
            "phase_range", f"{place}#row {row}", "phase must be 0 (prefill) or 1 (decode).", "Map other codes first."
        )
    for name, least in (("source_rank", -1), ("seq_id", 0), ("token_pos", 0), ("data_source", 0)):
        column = getattr(batch, name)
        if column is not None and (np.asarray(column) < least).any():
            row = int(batch.rows[np.argmax(np.asarray(column) < least)])
            found.add(f"{name}_range", f"{place}#row {row}", f"{name} must be at least {least}.", "Correct the column.")
    found.raise_if_any()


def report_entries(
    found: Violations, code: str, batch: Batch, bad: npt.NDArray[np.bool_], trace: HasAxes, rule: str, remedy: str
) -> None:
    """Report the first entries that a mask marks; `rule` ends the sentence that begins with the expert."""
    where = np.argwhere(bad)
    for row, layer, k in where[:SHOWN_ROWS]:
        found.add(
            code,
            f"{trace.provenance.source}#row {int(batch.rows[row])}, layer {int(trace.layer_ids[layer])}, k {int(k)}",
            f"Expert {int(batch.topk_ids[row, layer, k])} {rule}.",
            f"{remedy} {len(where)} such entries in this batch." if len(where) > 1 else remedy,
        )
