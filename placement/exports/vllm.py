"""The three files that pull requests to vLLM propose; vLLM 0.33 itself loads no placement.

#41141: one line of JSON, slots by MoE layer, counted from 0; it must agree with the engine's redundant experts.
#49572: a list of slots per MoE layer, or one for all. #34811: the rank of each expert, one map for all layers.
"""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from placement.exports.context import Context
from placement.exports.export import Export
from placement.exports.shared import axes
from placement.exports.shared.document import Document
from placement.exports.shared.ranks import slots_of_ranks
from placement.exports.table import Rules, Table
from placement.support.fields import check_fields, integers
from placement.support.json_files import parse_json
from traces import InputError, Violations

__all__ = ["LIST", "MAPPING", "RANKS"]

RECORD = "eplb_initial_mapping"
MAP = "initial_global_assignments"
TO_RANK = "expert_to_ep_rank"
MAPPING_FIELDS = {"record_type": str, "version": int, "num_redundant_experts": int, "num_slots": int, MAP: dict}


def _sniff_mapping(document: Document) -> bool:
    return b'"record_type"' in document.start and RECORD.encode() in document.start


def _encode_mapping(table: Table, context: Context) -> bytes:
    record = {
        "record_type": RECORD,
        "version": 1,
        "num_redundant_experts": table.slots.shape[1] - table.num_experts,
        "num_slots": table.slots.shape[1],
        MAP: {str(ordinal): row for ordinal, row in enumerate(table.slots.tolist())},
    }
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _decode_mapping(document: Document, context: Context, found: Violations) -> Table | None:
    lines = [line for line in document.data.splitlines() if line.strip()]
    if len(lines) != 1:
        detail = f"{len(lines)} lines; the file holds one record."
        raise InputError.of("one_record", document.name, detail, f"Keep the line of the {RECORD}.")
    place = f"{document.name}#"
    record = parse_json(lines[0], document.name)
    check_fields(found, record, MAPPING_FIELDS, {}, place)
    if found.found:
        return None
    for name, expected in (("record_type", RECORD), ("version", 1)):
        if record[name] != expected:
            found.add(name, f"{place}/{name}", f"{record[name]!r:.40} is not {expected!r}.", "Convert the file.")
    rows = record[MAP]
    if set(rows) != {str(ordinal) for ordinal in range(len(rows))} or not rows:
        detail = f"The keys are not the MoE layers 0..{len(rows) - 1}."
        found.add("layer_key", f"{place}/{MAP}", detail, "Count MoE layers from 0, without a gap.")
        return None
    slots = integers(found, [rows[str(ordinal)] for ordinal in range(len(rows))], 2, f"{place}/{MAP}")
    if found.found:
        return None
    layers, notes = axes.ordinals(len(slots), context, document.name)
    experts = record["num_slots"] - record["num_redundant_experts"]
    if record["num_slots"] != slots.shape[1]:
        detail = f"num_slots is {record['num_slots']}, but the rows have {slots.shape[1]} slots."
        found.add("num_slots", f"{place}/num_slots", detail, "Correct the number.")
    elif context.experts not in (None, experts):
        detail = f"{slots.shape[1]} slots for {context.experts} experts are {slots.shape[1] - (context.experts or 0)}."
        found.add("num_redundant_experts", f"{place}/num_redundant_experts", detail, "Correct the number.")
    places = tuple(f"{place}/{MAP}/{ordinal}" for ordinal in range(len(slots)))
    return Table(slots=slots, layer_ids=layers, num_experts=experts, num_gpus=None, places=places, notes=notes)


def _sniff_list(document: Document) -> bool:
    return document.start.startswith(b"[")


def _encode_list(table: Table, context: Context) -> bytes:
    return json.dumps(table.slots.tolist()).encode() + b"\n"


def _decode_list(document: Document, context: Context, found: Violations) -> Table | None:
    content = document.json
    shared = isinstance(content, list) and bool(content) and not isinstance(content[0], list)
    slots = integers(found, [content] if shared else content, 2, f"{document.name}#")
    if found.found:
        return None
    if shared:
        layers, notes = axes.every_layer(context)
        slots = np.tile(slots, (len(layers), 1))
        places = (f"{document.name}#",) * len(layers)
    else:
        layers, notes = axes.ordinals(len(slots), context, document.name)
        places = tuple(f"{document.name}#/{row}" for row in range(len(slots)))
    experts = axes.experts_of(slots, context)
    notes = (*notes, *axes.experts_note(experts, context))
    return Table(slots=slots, layer_ids=layers, num_experts=experts, num_gpus=None, places=places, notes=notes)


def _sniff_ranks(document: Document) -> bool:
    return TO_RANK in document.fields


def _check_ranks(table: Table, context: Context, found: Violations) -> None:
    """Record layers that differ, as one map serves all of them."""
    gpus = [_gpu_of_expert(table, row) for row in range(len(table.slots))]
    for row, gpu in enumerate(gpus):
        if not np.array_equal(gpu, gpus[0]):
            detail = f"Layer {table.layer_ids[row]} differs from layer {table.layer_ids[0]}; one map serves all layers."
            remedy = "Use vllm_pr49572 or vllm_pr41141, which have a map per layer."
            found.add("layers_differ", table.places[row], detail, remedy)
            return


def _gpu_of_expert(table: Table, row: int) -> npt.NDArray[np.int64]:
    gpu = np.full(table.num_experts, -1, dtype=np.int64)
    for rank, experts in enumerate(table.rows_of_gpus(row)):
        gpu[experts] = rank
    return gpu


def _encode_ranks(table: Table, context: Context) -> bytes:
    return json.dumps({TO_RANK: _gpu_of_expert(table, 0).tolist()}).encode() + b"\n"


def _decode_ranks(document: Document, context: Context, found: Violations) -> Table | None:
    place = f"{document.name}#/{TO_RANK}"
    check_fields(found, document.json, {TO_RANK: list}, {}, f"{document.name}#")
    if found.found:
        return None
    gpus = integers(found, document.json[TO_RANK], 1, place)
    if found.found:
        return None
    slots, ranks = slots_of_ranks(gpus[None, :], context, place, found)
    layers, notes = axes.every_layer(context)
    return Table(
        slots=np.tile(slots, (len(layers), 1)),
        layer_ids=layers,
        num_experts=len(gpus),
        num_gpus=ranks,
        places=(place,) * len(layers),
        notes=notes,
    )


MAPPING = Export(
    name="vllm_pr41141",
    content="vLLM pull request 41141: one line of JSON, MoE layers counted from 0",
    engine="vLLM pull request 41141 (not in vLLM 0.33)",
    usage='--enable-eplb --eplb-config \'{"num_redundant_experts": REDUNDANT, "initial_mapping_path": "FILE", '
    '"disable_online_rebalancing": true}\'',
    suffix=".jsonl",
    rules=Rules(layers="ordinals"),
    sniff=_sniff_mapping,
    encode=_encode_mapping,
    decode=_decode_mapping,
)
LIST = Export(
    name="vllm_pr49572",
    content="vLLM pull request 49572: JSON list of slots per MoE layer",
    engine="vLLM pull request 49572 (not in vLLM 0.33)",
    usage='--enable-eplb --eplb-config \'{"num_redundant_experts": REDUNDANT, "initial_expert_map_path": "FILE"}\'',
    suffix=".json",
    rules=Rules(layers="ordinals"),
    sniff=_sniff_list,
    encode=_encode_list,
    decode=_decode_list,
)
RANKS = Export(
    name="vllm_pr34811",
    content="vLLM pull request 34811: JSON, the rank of each expert, one map for all layers, no replicas",
    engine="vLLM pull request 34811 (not in vLLM 0.33)",
    usage="--expert-placement-strategy custom --expert-placement-file FILE",
    suffix=".json",
    rules=Rules(layers="none", replicas=False, empty=True, order=False),
    sniff=_sniff_ranks,
    encode=_encode_ranks,
    decode=_decode_ranks,
    also=_check_ranks,
)
