"""What the readers of counts share: the checks of a load matrix, and the `LoadCounts` of it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.counts import LoadCounts
from traces.experts_base import counted_from_one, from_one
from traces.formats.axes import Axes
from traces.provenance import Provenance
from traces.support.errors import InputError, Violations

__all__ = ["add_slots", "checked_counts", "grown", "missing_note"]

SHOWN = 5
SHOWN_LAYERS = 16
MAX_CELLS = 1 << 26  # layers times experts: 0.5 GB of float64


def checked_counts(
    source: str,
    format_name: str,
    axes: Axes,
    load: npt.NDArray[np.float64],
    digest: str,
    *,
    notes: Iterable[str] = (),
    affinity: npt.NDArray[np.int64] | None = None,
    source_load: npt.NDArray[np.int64] | None = None,
    by_hand: bool = False,
) -> LoadCounts:
    """Check a load matrix (L, E) and return it as counts, without the layers that have none.

    Parameters
    ----------
    source, format_name : str
        File name and reader.
    axes : Axes
    load : (L, E) float64
        Tokens per layer and logical expert.
    digest : str
        ``sha256:...`` of the content.
    notes : iterable of str
        Beside those of the axes.
    affinity : (L-1, E, E) int64, optional
        Pairs from layer to layer, where the file has them; every layer has counts then.
    source_load : (R, L, E) int64, optional
        Tokens by the rank that they come from, where the file has them.
    by_hand : bool
        Whether people number the experts in this format, who may count from 1; an engine counts from 0.

    Raises
    ------
    InputError
        If a load is NaN, infinite or negative, a layer's sum is out of range, no layer has any count, or experts are
        counted from 1.
    """
    found = Violations()
    checks.check_layout(found, axes.layer_ids, axes.num_experts, 1)
    for layer, expert in np.argwhere(~np.isfinite(load) | (load < 0))[:SHOWN]:
        found.add(
            "load_not_finite",
            f"{source}#row {layer}, column {expert}",
            f"Load {load[layer, expert]} is NaN, infinite or negative.",
            "Correct the counts.",
        )
    if not found.found:
        checks.check_load_range(found, load, f"{source}#row ")
    found.raise_if_any()
    there = load.any(axis=1)
    if not there.any() or (affinity is not None and not there.all()):
        what = "No layer has any count." if not there.any() else f"Layers {_listed(axes.layer_ids[~there])} have none."
        raise InputError.of("zero_tokens", source, what, "Check the recording: was it on while requests were served?")
    if by_hand and not (axes.stated or axes.lenient) and counted_from_one(load[there]):
        raise from_one(source, load.shape[1], columns=format_name == "eplb")
    kept = np.ascontiguousarray(load[there])
    kept.flags.writeable = False
    unrecorded = tuple(axes.layer_ids[~there].tolist())
    return LoadCounts(
        load=kept,
        layer_ids=axes.layer_ids[there],
        provenance=Provenance(
            source=source, format=format_name, notes=(*axes.notes, *notes, *missing_note(axes.layer_ids[~there]))
        ),
        digest=digest,
        affinity=affinity,
        source_load=None if source_load is None else np.ascontiguousarray(source_load[:, there]),
        unrecorded=unrecorded,
    )


def missing_note(layers: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """Return the one note on layers without counts, whatever the format; none if there are no such layers."""
    if not layers.size:
        return ()
    return (
        f"Layers {_listed(layers)} have no counts: missing in the recording, or without experts. A plan leaves them "
        "out; an export gives those that the model has as MoE layers the default layout.",
    )


def _listed(layers: npt.NDArray[np.int64]) -> str:
    return ", ".join(map(str, layers[:SHOWN_LAYERS])) + (", ..." if len(layers) > SHOWN_LAYERS else "")


def grown(load: npt.NDArray[np.float64], layers: int, experts: int, place: str) -> npt.NDArray[np.float64]:
    """Return `load` with room for so many layers and experts, new cells 0; InputError if that is no model's size."""
    shape = (max(layers, load.shape[0]), max(experts, load.shape[1]))
    if shape[1] > checks.MAX_EXPERTS + 1 or shape[0] * shape[1] > MAX_CELLS:
        raise InputError.of(
            "id_out_of_range",
            place,
            f"Expert {experts - 1} in {layers} layers is beyond any model.",
            f"Expert ids are below {checks.MAX_EXPERTS}; check the file.",
        )
    if shape == load.shape:
        return load
    larger = np.zeros(shape)
    larger[: load.shape[0], : load.shape[1]] = load
    return larger


def add_slots(
    load: npt.NDArray[np.float64], slots: npt.NDArray[np.int64], counts: npt.NDArray[np.float64], place: str
) -> npt.NDArray[np.float64]:
    """Add the counts of physical slots to their logical experts.

    Parameters
    ----------
    load : (L, E) float64
        Changed in place, or replaced where a slot holds a larger expert than any before.
    slots : (L, P) int64
        Logical expert of each slot; -1 is empty.
    counts : (L, P) float64
        Tokens of each slot.
    place : str
        What errors point at.

    Returns
    -------
    (L, E) float64

    Raises
    ------
    InputError
        If an id is below -1 or beyond any model, a count is negative or not finite, or an empty slot has tokens.
    """
    found = Violations()
    for layer, slot in np.argwhere(slots < -1)[:SHOWN]:
        found.add(
            "id_out_of_range",
            f"{place}, layer {layer}, slot {slot}",
            f"Expert {slots[layer, slot]} is below -1.",
            "Record the map again.",
        )
    for layer, slot in np.argwhere(~np.isfinite(counts) | (counts < 0))[:SHOWN]:
        found.add(
            "load_not_finite",
            f"{place}, layer {layer}, slot {slot}",
            f"Load {counts[layer, slot]} is NaN, infinite or negative.",
            "Correct the counts.",
        )
    for layer, slot in np.argwhere((slots == -1) & (counts > 0))[:SHOWN]:
        found.add(
            "empty_slot",
            f"{place}, layer {layer}, slot {slot}",
            f"A slot that holds no expert has {counts[layer, slot]:g} tokens.",
            "The map and the counts are of different times; record both together.",
        )
    found.raise_if_any()
    load = grown(load, len(slots), int(slots.max(initial=-1)) + 1, place)
    row, slot = np.nonzero(slots >= 0)
    np.add.at(load, (row, slots[row, slot]), counts[row, slot])
    return load
