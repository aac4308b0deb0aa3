"""Which rows of a layer axis are MoE layers, where the axis counts every layer of the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile
from traces.formats.axes import Axes, check_largest
from traces.formats.hints import Hints
from traces.support.errors import InputError, Violations
from traces.support.shown import layers_that

__all__ = ["axes_of_rows", "moe_rows", "names_of_ordinals"]

SHOWN_LAYERS = 16
REMEDY = "Correct `layer_ids`, or the layers of `model` (`first_moe_layer`): is it the model that was recorded?"


def moe_rows(
    place: str, hints: Hints, used: npt.NDArray[np.bool_], *, certain: bool
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Find the MoE layers among the layers of the model.

    Parameters
    ----------
    place : str
        What errors point at.
    hints : Hints
        `layer_ids` or `model` decide, if given.
    used : (layers of the model,) bool
        Which layers hold anything but filler.
    certain : bool
        Whether filler can't be mistaken for what a token chose. With K = 1, expert 0 throughout looks like filler.

    Returns
    -------
    rows : (L,) int64
        They are the layer ids, too.
    notes : tuple of str

    Raises
    ------
    InputError
        If the caller and the content disagree, or nothing tells the layers.
    """
    found = Violations()
    count = len(used)
    named = None if hints.model is None else hints.model.of_rows(count, place)
    if hints.layer_ids is not None:
        named = _listed_rows(hints.layer_ids, count)
    if not used.any():
        if hints.lenient:
            return np.arange(count, dtype=np.int64) if named is None else named, ()
        raise InputError.of("zero_tokens", place, "Every layer holds filler only.", "Check the recording.")
    idle = np.flatnonzero(~used)
    if named is None:
        if not len(idle):
            return np.arange(count, dtype=np.int64), ()
        if not certain:
            raise InputError.of(
                "ambiguous_layers",
                place,
                f"{layers_that(idle, 'holds', 'hold')} expert 0 only: dense layers, or top-1 choices.",
                "Name the MoE layers: `layer_ids`, or `model` (config.json, or `num_layers` and `first_moe_layer`).",
            )
        taken = layers_that(
            idle, "holds filler only; taken for a dense layer", "hold filler only; taken for dense layers"
        )
        return np.flatnonzero(used), (f"{taken}.",)
    stray = np.setdiff1d(np.flatnonzero(used), named)
    if len(stray):
        detail = (
            f"{layers_that(stray, 'is', 'are')} not among the MoE layers that are named, and yet there are experts."
        )
        found.add("layer_not_named", place, detail, REMEDY)
    empty = np.intersect1d(idle, named)
    if certain and len(empty) and not hints.lenient:
        filler = layers_that(empty, "is named as an MoE layer, but holds", "are named as MoE layers, but hold")
        detail = f"{filler} filler only."
        found.add("layer_is_dense", place, detail, REMEDY)
    found.raise_if_any()
    return named, ()


def names_of_ordinals(hints: Hints, count: int) -> npt.NDArray[np.int64] | None:
    """Return the layers of an axis that counts MoE layers only, as the caller's numbers tell it; None if it does not.

    Parameters
    ----------
    hints : Hints
    count : int
        Length of the axis.
    """
    if hints.layer_ids is not None:
        given = np.asarray(hints.layer_ids)
        if given.shape != (count,) or given.dtype.kind not in "iu" or not count or given.max() < count:
            return None
        return checks.as_layer_ids(given, count)
    model = hints.model
    if model is None or count in (model.num_layers, max(model.num_layers, *(n + 1 for n in model.mtp_layers), 0)):
        return None
    if count not in (len(model.moe_layers), len(model.all_moe_layers)):
        return None
    return model.of_ordinals(count, "")


def axes_of_rows(
    file: TraceFile | Bundle, hints: Hints, rows: npt.NDArray[np.int64], *, largest_id: int, num_experts: int | None
) -> Axes:
    """Return the axes of a trace whose layers are `rows`; `num_experts` as the file states it."""
    if num_experts is None:
        check_largest(hints, largest_id, file.name)
    without = replace(hints, layer_ids=None)
    return Axes.settle(file, without, len(rows), lambda: largest_id, layer_ids=rows, num_experts=num_experts)


def _listed_rows(layer_ids: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    given = np.asarray(layer_ids)
    rows = checks.as_layer_ids(given, given.size)
    if not len(rows) or rows[0] < 0 or rows[-1] >= count or (np.diff(rows) <= 0).any():
        detail = f"Layers of the file are 0..{count - 1}; got {rows.tolist()[:SHOWN_LAYERS]}."
        raise InputError.of("layer_ids_range", "/layer_ids", detail, "Name each MoE layer once, in rising order.")
    return rows
