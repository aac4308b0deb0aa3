"""vllm-ascend's expert heat: `moe_load` (layers, devices, slots) as `.npy` or `.pt`, with the expert map of that time.

`moe_load` is what the EPLB updator gathers: tokens of every physical slot of every device, in the order of MoE layers;
with the policy that plans in stages it has a further axis in front, over which it is summed. What a slot holds stands
in the expert map (``expert_map_path``, or what ``expert_map_record_path`` wrote):

    {"moe_layer_count": 58, "layer_list": [{"layer_id": 0, "device_count": 32, "device_list":
        [{"device_id": 0, "device_expert": [7, 2, 0, 3, 5]}, ...]}, ...]}

So a folder of both is read. An array alone is read if the format is named and num_experts is the number of its slots:
there are no copies then, and slot s of device d is taken for expert d n + s, which is how vllm-ascend starts. A tensor
(layers, experts), which its example of a static plan starts from, is logical and needs no map.

References
----------
https://github.com/vllm-project/vllm-ascend, ``vllm_ascend/eplb/eplb_updator.py`` (`compute_and_set_moe_load`) and pull
request 4876, which saves it with `numpy.save`; ``vllm_ascend/eplb/eplb_loggers.py`` for the map;
``examples/eplb/eplb_strategy.py`` for the tensor of logical experts.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.counts import LoadCounts
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile, guarded
from traces.decoding.json_objects import first_keys
from traces.decoding.npy import MAGIC, open_npy
from traces.decoding.torch_file import is_torch, open_torch
from traces.decoding.torch_tensors import Tensor
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.shared.counts import add_slots, checked_counts
from traces.formats.shared.matrices import MATRIX_BYTES, MAX_LAYERS
from traces.held_ranks import held_slots
from traces.support.errors import InputError, Violations

__all__ = ["READER"]

MAP_KEYS = {"moe_layer_count", "layer_list"}
MAP_BYTES = 64 << 20
CERTAIN = 6  # devices of all layers that hold an id: more than replicas of a hot expert do by chance


def open_bundle(bundle: Bundle, hints: Hints) -> LoadCounts:
    """Fold the loads of all arrays through the map, and add them up."""
    arrays = [file for file in bundle.files if _is_array(file)]
    maps = [file for file in bundle.files if first_keys(file) >= MAP_KEYS]
    if not arrays or len(maps) > 1:
        detail = f"{len(arrays)} arrays and {len(maps)} expert maps."
        raise InputError.of("load_shape", bundle.name, detail, "Give moe_load arrays, and the one map that held then.")
    heat = [_heat(file) for file in arrays]
    found = Violations()
    for file, part in zip(arrays, heat, strict=True):
        if part.shape != heat[0].shape:
            detail = f"Shape {part.shape}, where {arrays[0].name} has {heat[0].shape}."
            found.add("load_shape", file.name, detail, "Give the arrays of one run.")
    found.raise_if_any()
    layers, devices, slots = heat[0].shape
    if devices == 1 and not maps:
        held = np.broadcast_to(np.arange(slots), heat[0].shape)
        notes = ["The loads are those of logical experts, or of a single device."]
    elif maps:
        held = _map(maps[0])
        if held.shape != heat[0].shape:
            detail = f"The map has shape {held.shape}, the loads {heat[0].shape} (layers, devices, slots)."
            raise InputError.of("map_shape", maps[0].name, detail, "Give the map of the run that was recorded.")
        notes = ["The expert map is taken to have held all the time: record with a static map."]
    else:
        if hints.experts != devices * slots:
            raise InputError.of(
                "map_missing",
                bundle.name,
                f"What the {devices} x {slots} slots hold is not known.",
                f"Give a folder with the expert map; without replicas, give {devices * slots} as `num_experts`.",
            )
        held = np.broadcast_to(np.arange(devices * slots).reshape(1, devices, slots), heat[0].shape)
        notes = [f"There is no expert map: slot s of device d is taken for expert {slots} d + s."]
    load = np.zeros((0, 0))
    for file, part in zip(arrays, heat, strict=True):
        load = add_slots(load, held.reshape(layers, -1), part.reshape(layers, -1), f"{file.name}#")
    alone = held_slots(sum(heat[1:], heat[0]).reshape(layers, -1), load) if devices > 1 else None
    what = ""
    if maps and (cut := _without_shared(load, held, hints)) is not None:
        what = "Shared experts of mix_placement, on every device, are no routed experts; their loads were left out"
        what += "." if hints.experts is not None else f": id {cut.shape[1]} and above, as nobody states `num_experts`."
        load = cut
    axes = Axes.settle(bundle, hints, layers, lambda: -1, num_experts=load.shape[1])
    if other := len(bundle.files) - len(arrays) - len(maps):
        notes.append(f"{other} other files were left out.")
    counts = checked_counts(bundle.name, "vllm_ascend", axes, load, f"sha256:{bundle.sha256()}", notes=notes)
    return replace(counts, provenance=replace(counts.provenance, held=alone).without_beyond(what))


def _without_shared(
    load: npt.NDArray[np.float64], held: npt.NDArray[np.int64], hints: Hints
) -> npt.NDArray[np.float64] | None:
    """Return the loads without ids from E on, if every device holds as many of them; None if not, or there are none.

    Where nobody states E, the last ids are shared ones if every device holds each of them once, in every layer.
    """
    experts = hints.experts
    if experts is None and held.shape[1] > 1 and held.shape[0] * held.shape[1] >= CERTAIN:
        experts = load.shape[1]
        while experts > 1 and ((held == experts - 1).sum(axis=2) == 1).all():
            experts -= 1
        experts = None if experts == 1 else experts  # all on every device: those are replicas
    if experts is None or load.shape[1] <= experts:
        return None
    each = (held >= experts).sum(axis=2)
    return load[:, :experts].copy() if (each == each.flat[0]).all() else None


def _is_array(file: TraceFile) -> bool:
    return file.head.startswith(MAGIC) or is_torch(file)


def _is_tensor(file: TraceFile) -> bool:
    """Tell whether a file of torch.save is a single tensor with the axes of the format."""
    if not is_torch(file):
        return False
    value = open_torch(file).value
    return isinstance(value, Tensor) and len(value.shape) in (2, 3, 4)


def _heat(file: TraceFile) -> npt.NDArray[np.float64]:
    """Read an array (layers, devices, slots); stages in front are summed, logical experts are those of one device."""
    if file.head.startswith(MAGIC):
        with file.open() as stream:
            array = open_npy(file, stream)
            _check(file, array.header.shape, array.header.dtype.kind, array.header.data_bytes)
            heat = array.whole().astype(np.float64)
    else:
        saved = open_torch(file)
        if not isinstance(saved.value, Tensor):
            raise InputError.of("load_shape", file.name, "This is no tensor.", "Save moe_load as it is.")
        _check(file, saved.value.shape, saved.value.kind, 8 * saved.value.size)
        with saved.numbers() as numbers:
            heat = numbers.array(saved.value).astype(np.float64)
    if heat.ndim == 4:
        heat = heat.sum(axis=0)
    if heat.ndim == 2:
        return heat[:, np.newaxis]
    steps = np.diff(heat, axis=2)
    # By chance, a single device of 4 slots is sorted once in 24 times; all devices of all layers are not.
    if (
        steps.shape[2] >= 2
        and heat.shape[0] * heat.shape[1] >= 4
        and (steps >= 0).all()
        and (steps > 0).any(axis=2).all()
    ):
        raise InputError.of(
            "cumulative_load",
            file.name,
            "The loads rise from slot to slot on every device: they are running sums, as some versions record.",
            "Save numpy.diff(moe_load, axis=-1, prepend=0).",
        )
    return heat


def _check(file: TraceFile, shape: tuple[int, ...], kind: str, size: int) -> None:
    """Refuse shapes and types of something else before the numbers are read."""
    if len(shape) not in (2, 3, 4) or 0 in shape or shape[-3 if len(shape) > 2 else 0] > MAX_LAYERS:
        detail = f"Shape {shape} is not (layers, devices, slots)."
        raise InputError.of("load_shape", file.name, detail, "Save moe_load as it is.")
    if kind not in "iuf" or size > MATRIX_BYTES:
        raise InputError.of("load_dtype", file.name, f"{size} bytes of kind {kind!r}?", "Save moe_load as it is.")


def _map(file: TraceFile) -> npt.NDArray[np.int64]:
    """Read an expert map as (layers, devices, slots)."""
    if file.size > MAP_BYTES:
        raise InputError.of("too_large", file.name, f"An expert map of {file.size} bytes?", "Check the file.")
    with guarded(file.name, RecursionError), file.open() as stream:
        content: Any = json.loads(stream.read().decode())
    try:
        layers = sorted(content["layer_list"], key=lambda layer: int(layer["layer_id"]))
        numbers = [layer["layer_id"] for layer in layers]
        devices = [sorted(layer["device_list"], key=lambda device: int(device["device_id"])) for layer in layers]
        experts = [[device["device_expert"] for device in row] for row in devices]
        if any(type(value) is not int for row in experts for device in row for value in device):
            raise TypeError("an expert is no integer")
        if len(set(numbers)) != len(numbers) or len(numbers) != content["moe_layer_count"]:
            raise ValueError("layers are missing or occur twice")
        if any([device["device_id"] for device in row] != list(range(len(row))) for row in devices):
            raise ValueError("devices are missing or occur twice")
        held = np.array(experts, dtype=np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        detail = f"This is no expert map: {str(error)[:120]}."
        raise InputError.of("map_shape", file.name, detail, "Every layer has the same devices and slots.") from error
    if held.ndim != 3 or not held.size:
        raise InputError.of(
            "map_shape", file.name, f"Shape {held.shape}.", "Every layer has the same devices and slots."
        )
    return held


READER = Reader(
    name="vllm_ascend",
    engine="vllm-ascend",
    content="vllm-ascend moe_load .npy or .pt (layers, devices, slots) with the expert map, in a folder; loads only",
    sniff=_is_tensor,  # a .npy alone may be anything
    open=lambda file, hints: open_bundle(Bundle.single(file), hints),
    sniff_bundle=lambda bundle: (
        any(first_keys(file) >= MAP_KEYS for file in bundle.files) and any(map(_is_array, bundle.files))
    ),
    open_bundle=open_bundle,
)
