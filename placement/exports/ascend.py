"""vllm-ascend's expert map: lists of layers and devices, read by their order and not by their ids.

``vllm_ascend``, expert_map_path: the reader ignores layer_id and device_id, so both must count from 0; all devices
have as many slots; an expert twice on one device breaks the map from experts to slots. With ``mix_placement`` the
shared experts have ids from E on, one of them on every device (``vllm_ascend/eplb/core/eplb_utils.py``).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.exports.context import Context
from placement.exports.export import Export
from placement.exports.shared import axes
from placement.exports.shared.document import Document
from placement.exports.table import Rules, Table
from placement.support.fields import check_fields, integers
from placement.topology.links import MAX_GPUS
from traces import Violations

__all__ = ["EXPORT"]


def _sniff(document: Document) -> bool:
    return {"moe_layer_count", "layer_list"} <= set(document.fields)


def _encode(table: Table, context: Context) -> bytes:
    layers = [
        {
            "layer_id": row,
            "device_count": table.num_gpus,
            "device_list": [
                {"device_id": device, "device_expert": experts}
                for device, experts in enumerate(table.rows_of_gpus(row))
            ],
        }
        for row in range(len(table.slots))
    ]
    return json.dumps({"moe_layer_count": len(layers), "layer_list": layers}).encode() + b"\n"


def _decode(document: Document, context: Context, found: Violations) -> Table | None:
    place = f"{document.name}#"
    content = document.json
    check_fields(found, content, {"moe_layer_count": int, "layer_list": list}, {}, place)
    if found.found:
        return None
    listed = content["layer_list"]
    if content["moe_layer_count"] != len(listed) or not listed:
        detail = f"moe_layer_count is {content['moe_layer_count']}, but {len(listed)} layers are listed."
        found.add("layer_count", f"{place}/moe_layer_count", detail, "Correct the number.")
        return None
    rows = [_devices(layer, row, f"{place}/layer_list/{row}", found) for row, layer in enumerate(listed)]
    if found.found:
        return None
    devices = len(rows[0])
    slots = integers(found, [[e for device in row for e in device] for row in rows], 2, f"{place}/layer_list")
    sizes = {len(device) for row in rows for device in row}
    if len(sizes) > 1 or {len(row) for row in rows} != {devices}:
        detail = f"Devices of {sorted(sizes)[:8]} slots; layers of {sorted({len(row) for row in rows})[:8]} devices."
        found.add("slots_per_device", f"{place}/layer_list", detail, "Give every device as many slots in every layer.")
    if found.found:
        return None
    layers, notes = axes.ordinals(len(slots), context, document.name)
    held, shared = _without_shared(np.asarray(slots), devices, context)
    return Table(
        slots=held,
        layer_ids=layers,
        num_experts=(experts := axes.experts_of(held, context)),
        num_gpus=devices,
        places=tuple(f"{place}/layer_list/{row}" for row in range(len(held))),
        notes=(*notes, *axes.experts_note(experts, context), *shared),
    )


def _without_shared(
    slots: npt.NDArray[np.int64], devices: int, context: Context
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Leave out the slots of shared experts, which `mix_placement` puts on every device as ids from E on.

    Parameters
    ----------
    slots : (L, S) int64
    devices : int
    context : Context
        Where it does not say E, the ids stay, and a note tells what they look like.

    Returns
    -------
    slots : (L, S) int64
        Unchanged where devices hold different numbers of such ids, which the checks then refuse.
    notes : tuple of str
    """
    by_device = slots.reshape(len(slots), devices, -1)
    experts = context.experts
    if experts is None:
        last = int(slots.max(initial=0))
        if devices > 1 and ((by_device == last).sum(axis=2) == 1).all():
            note = f"Expert {last} is on every device in every layer: a shared expert of mix_placement, most likely."
            return slots, (f"{note} Give `num_experts` or `model` to leave it out.",)
        return slots, ()
    beyond = by_device >= experts
    each = int(beyond[0, 0].sum())
    if not 0 < each < by_device.shape[2] or (beyond.sum(axis=2) != each).any():
        return slots, ()
    ids = ", ".join(map(str, np.unique(slots[slots >= experts]).tolist()[:8]))
    note = f"Shared experts of mix_placement (id {ids}), {each} on every device, are no part of the plan; left out."
    return by_device[~beyond].reshape(len(slots), -1), (note,)


def _devices(layer: Any, ordinal: int, place: str, found: Violations) -> list[list[int]]:
    """Return the experts of each device of a layer."""
    check_fields(found, layer, {"layer_id": int, "device_count": int, "device_list": list}, {}, place)
    if found.found:
        return []
    listed = layer["device_list"]
    if layer["layer_id"] != ordinal:
        detail = f"layer_id {layer['layer_id']} is at position {ordinal}, and the engine goes by the position."
        found.add("layer_key", f"{place}/layer_id", detail, "List MoE layers in order, from 0.")
    if layer["device_count"] != len(listed) or not 1 <= len(listed) <= MAX_GPUS:
        detail = f"device_count is {layer['device_count']}, but {len(listed)} devices are listed."
        found.add("device_count", f"{place}/device_count", detail, "Correct the number.")
    devices = []
    for position, device in enumerate(listed):
        where = f"{place}/device_list/{position}"
        check_fields(found, device, {"device_id": int, "device_expert": list}, {}, where)
        if found.found:
            return []
        if device["device_id"] != position:
            detail = f"device_id {device['device_id']} is at position {position}, and the engine goes by the position."
            found.add("device_id", f"{where}/device_id", detail, "List devices in order, from 0.")
        devices.append(integers(found, device["device_expert"], 1, f"{where}/device_expert").tolist())
    return devices


EXPORT = Export(
    name="vllm_ascend",
    content="vllm-ascend expert_map_path: JSON, experts per device and MoE layer, counted from 0",
    engine="vllm-ascend 0.11 to 0.27",
    usage='--additional-config \'{"eplb_config": {"expert_map_path": "FILE", "num_redundant_experts": REDUNDANT}}\'',
    suffix=".json",
    rules=Rules(layers="ordinals"),
    sniff=_sniff,
    encode=_encode,
    decode=_decode,
)
