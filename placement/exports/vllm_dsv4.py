"""The static expert map of DeepSeek-V4 that vLLM's pull request 53022 loads with the checkpoint.

A JSON list of the slots of every layer of the model, those for multi-token prediction last; or one list that stands
for all of them. ``vllm/models/deepseek_v4/expert_map.py`` of that pull request: the number of rows is
``num_hidden_layers`` and the layers for prediction, whether the engine runs them or not; each row has every expert, and
without redundant ones the groups of the router stay together.
"""

from __future__ import annotations

import json

import numpy as np

from placement.exports.context import Context
from placement.exports.export import Export
from placement.exports.shared import axes
from placement.exports.shared.checks import engine_row
from placement.exports.shared.document import Document
from placement.exports.table import Rules, Table
from placement.support.fields import integers
from traces import Violations

__all__ = ["EXPORT"]

MODEL = "deepseek_v4"


def _sniff(document: Document) -> bool:
    """Leave a list to pull request 49572: only the number of rows tells them apart."""
    return False


def _encode(table: Table, context: Context) -> bytes:
    model = context.model
    if model is None:
        raise AssertionError("arrange() refuses rows without a model")
    slots = np.tile(engine_row(table), (model.num_layers + len(model.mtp_layers), 1))
    slots[table.layer_ids] = table.slots
    return json.dumps(slots.tolist()).encode() + b"\n"


def _decode(document: Document, context: Context, found: Violations) -> Table | None:
    place, content = f"{document.name}#", document.json
    shared = isinstance(content, list) and bool(content) and not isinstance(content[0], list)
    slots = integers(found, [content] if shared else content, 2, place)
    if found.found:
        return None
    if shared:
        layers, notes = axes.every_layer(context)
        slots = np.tile(slots, (max(layers.tolist()) + 1, 1))
    else:
        layers, notes = axes.rows(len(slots), context, document.name)
    experts = axes.experts_of(slots[layers], context)
    axes.check_fillers(found, slots, layers, experts, place)
    if found.found:
        return None
    return Table(
        slots=slots[layers],
        layer_ids=layers,
        num_experts=experts,
        num_gpus=None,
        places=tuple(place if shared else f"{place}/{row}" for row in layers.tolist()),
        notes=(*notes, *axes.experts_note(experts, context)),
    )


def _also(table: Table, context: Context, found: Violations) -> None:
    """Record groups of the router that a map without redundant experts takes apart: the ids are renumbered then."""
    groups = None if context.model is None else context.model.num_groups
    if groups is None or table.slots.shape[1] != table.num_experts or table.num_experts % groups:
        return
    size = table.num_experts // groups
    for row, slots in enumerate(table.slots):
        parts = slots.reshape(groups, size) // size
        if (parts != parts[:, :1]).any():
            detail = (
                f"The {groups} groups of {size} experts are mixed; without redundant experts, the engine renumbers "
            )
            detail += "the router's, whose groups are contiguous."
            remedy = "Plan with redundant experts, or one that keeps each group's experts in contiguous slots."
            found.add("router_groups", table.places[row], detail, remedy)
            return


def _warn(context: Context) -> tuple[str, ...]:
    notes = []
    model = context.model
    if model is not None and model.name and not model.name.startswith(MODEL):
        notes.append(f"The engine reads this file for DeepSeek-V4 only; the model is {model.name}.")
    if model is not None and context.without_mtp and model.mtp_layers:
        notes.append(
            f"Layers {list(model.mtp_layers)}, for multi-token prediction, have the contiguous layout: the engine "
            "wants their rows, whether it runs them or not."
        )
    return tuple(notes)


EXPORT = Export(
    name="vllm_pr53022",
    content="vLLM pull request 53022, DeepSeek-V4: JSON list of slots per layer of the model, MTP layers included",
    engine="vLLM pull request 53022 (not in vLLM 0.33)",
    usage="--enable-expert-parallel --enable-eplb --eplb-config "
    '\'{"num_redundant_experts": REDUNDANT, "expert_map_path": "FILE"}\'',
    suffix=".json",
    rules=Rules(layers="rows", mtp="must"),
    sniff=_sniff,
    encode=_encode,
    decode=_decode,
    also=_also,
    warn=_warn,
)
