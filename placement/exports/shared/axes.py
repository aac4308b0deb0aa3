"""Which layers of the model the rows of a placement file are, and how many experts it has."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement.exports.context import Context
from traces import InputError
from traces.rules import as_layer_ids, check_layout
from traces.support.errors import Violations

__all__ = ["Axis", "check_fillers", "every_layer", "experts_note", "experts_of", "ordinals", "rows"]

Axis = tuple[npt.NDArray[np.int64], tuple[str, ...]]  # layers, notes


def ordinals(count: int, context: Context, name: str) -> Axis:
    """Return the layers of `count` rows that are MoE layers only, and notes on what was assumed."""
    if context.layer_ids is not None:
        return _given(as_layer_ids(context.layer_ids, count)), ()
    if context.model is not None:
        return context.model.of_ordinals(count, name), ()
    note = f"The file does not name its layers; taken as 0..{count - 1} (give `model` or `layer_ids`)."
    return np.arange(count, dtype=np.int64), (note,)


def rows(count: int, context: Context, name: str) -> Axis:
    """Return the MoE layers among `count` rows that are all layers of the model, and notes on what was assumed."""
    if context.layer_ids is not None:
        layers = _given(as_layer_ids(context.layer_ids, len(context.layer_ids)))
        if layers[-1] >= count:
            detail = f"Layer {layers[-1]} is not among the {count} rows."
            raise InputError.of("layer_count", name, detail, "Correct `layer_ids`.")
        return layers, ()
    if context.model is not None:
        return context.model.of_rows(count, name), ()
    note = (
        f"The file does not say which of its {count} rows are MoE layers; all are taken (give `model` or `layer_ids`)."
    )
    return np.arange(count, dtype=np.int64), (note,)


def every_layer(context: Context) -> Axis:
    """Return the layers that one map for all layers stands for, and notes on what was assumed."""
    if context.layer_ids is not None:
        return _given(as_layer_ids(context.layer_ids, len(context.layer_ids))), ()
    if context.model is not None:
        layers = context.model.moe_layers if context.without_mtp else context.model.all_moe_layers
        return np.array(layers, dtype=np.int64), ()
    note = "The file holds one map and names no layer; taken as layer 0 (give `model` or `layer_ids`)."
    return np.zeros(1, dtype=np.int64), (note,)


def experts_of(slots: npt.NDArray[np.int64], context: Context) -> int:
    """Return the experts per layer: as the caller says, else by the largest id, as every expert must be there."""
    return int(slots.max(initial=0)) + 1 if context.experts is None else context.experts


def experts_note(experts: int, context: Context) -> tuple[str, ...]:
    """Return the note on a number of experts that nobody stated: a missing last expert would not show."""
    if context.experts is not None:
        return ()
    return (
        f"{experts} experts, by the largest id: if the last ones are missing everywhere, that is not seen "
        "(give `num_experts` or `model`).",
    )


def check_fillers(
    found: Violations, slots: npt.NDArray[np.int64], layers: npt.NDArray[np.int64], experts: int, place: str
) -> None:
    """Record rows of layers without experts, of slots (rows, P), in which an expert is missing: the engine looks."""
    for row in sorted(set(range(len(slots))) - set(layers.tolist())):
        if set(slots[row].tolist()) != set(range(min(experts, slots.size + 1))):
            detail = f"The row of a layer without experts must hold every expert of 0..{experts - 1}, too."
            found.add("filler_row", f"{place}/{row}", detail, "Fill it with slot number modulo experts.")


def _given(layers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return layers that a caller named, if they rise."""
    found = Violations()
    check_layout(found, layers, 1, 1)
    found.raise_if_any()
    return layers
