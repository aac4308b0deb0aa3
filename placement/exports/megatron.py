"""The order of experts for Megatron-core, which has no placement file.

megatron-core 0.16.1, ``transformer/moe/moe_layer.py``: E must divide by the expert-parallel size S, and rank r owns the
E/S consecutive experts from number r * E/S. So a placement is applied by renumbering the experts of the checkpoint:
position p of a layer's list is the expert that becomes number p. Its router rows (``router.weight``,
``router.expert_bias``) and its weights move together, so the model computes the same; except where the router limits
tokens to groups of consecutive experts: a placement that mixes such groups is refused.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.exports.context import Context
from placement.exports.export import Export
from placement.exports.shared.document import Document
from placement.exports.shared.groups import mixed_groups
from placement.exports.table import Rules, Table
from placement.support.fields import check_fields, integers
from placement.topology.links import MAX_GPUS
from traces import Violations

__all__ = ["EXPORT"]

FORMAT = "moe-placement-megatron-expert-order"
SIZE = "expert_model_parallel_size"
FIELDS = {"format": str, "version": int, "num_experts": int, SIZE: int, "decoder": dict, "mtp": dict}


def _sniff(document: Document) -> bool:
    return document.fields.get("format") == FORMAT


def _also(table: Table, context: Context, found: Violations) -> None:
    groups = None if context.model is None else context.model.num_groups
    if groups is None or table.num_experts % groups or table.slots.shape[1] != table.num_experts:
        return
    size = table.num_experts // groups
    for row in mixed_groups(table.slots, groups)[:20].tolist():
        detail = (
            f"The order mixes the {groups} groups of {size} experts that the router limits a token to; they are "
            "consecutive numbers, so other experts would be chosen."
        )
        remedy = "Plan with the experts of each group on one node or GPU, in blocks, or leave the experts in order."
        found.add("groups_mixed", table.places[row], detail, remedy)


def _encode(table: Table, context: Context) -> bytes:
    first_mtp = np.inf if context.model is None else context.model.num_layers
    rows = list(zip(table.layer_ids.tolist(), table.slots.tolist(), strict=True))
    content = {
        "format": FORMAT,
        "version": 1,
        "num_experts": table.num_experts,
        SIZE: table.num_gpus,
        "decoder": {str(layer): row for layer, row in rows if layer < first_mtp},
        "mtp": {str(int(layer - first_mtp)): row for layer, row in rows if layer >= first_mtp},
    }
    return json.dumps(content).encode() + b"\n"


def _decode(document: Document, context: Context, found: Violations) -> Table | None:
    place = f"{document.name}#"
    content = document.json
    check_fields(found, content, FIELDS, {}, place)
    if found.found:
        return None
    if content["format"] != FORMAT or content["version"] != 1:
        found.add("version", f"{place}/version", f"This is not version 1 of {FORMAT}.", "Convert the file.")
    if content["mtp"] and context.model is None:
        detail = "MTP layers are numbered on from the decoder's, and nobody says how many those are."
        found.add("model_unknown", f"{place}/mtp", detail, "Give `model`, the model's config or layers.")
    if not 1 <= content[SIZE] <= MAX_GPUS:
        found.add("num_gpus_range", f"{place}/{SIZE}", f"{content[SIZE]} ranks.", f"Give 1 to {MAX_GPUS}.")
    first_mtp = 0 if context.model is None else context.model.num_layers
    rows: dict[int, tuple[str, npt.NDArray[np.int64]]] = {}
    for block, offset in (("decoder", 0), ("mtp", first_mtp)):
        rows |= _rows(content[block], f"{place}/{block}", offset, content["num_experts"], found)
    if not rows and not found.found:
        found.add("layer_key", f"{place}/decoder", "There is no layer.", "List every MoE layer.")
    if found.found:
        return None
    layers = sorted(rows)
    table = Table(
        slots=np.stack([rows[layer][1] for layer in layers]),
        layer_ids=np.array(layers, dtype=np.int64),
        num_experts=content["num_experts"],
        num_gpus=content[SIZE],
        places=tuple(rows[layer][0] for layer in layers),
    )
    _also(table, context, found)
    return table


def _rows(
    content: dict[str, Any], place: str, offset: int, experts: int, found: Violations
) -> dict[int, tuple[str, npt.NDArray[np.int64]]]:
    """Return place and order of each layer."""
    rows = {}
    for key, value in content.items():
        where = f"{place}/{key:.40}"
        if not (key.isascii() and key.isdigit() and len(key) < 10 and str(int(key)) == key):
            found.add("layer_key", where, f"{key!r:.40} is no layer.", "Write layers as numbers.")
            continue
        order = integers(found, value, 1, where)
        if len(order) != experts:
            detail = f"{len(order)} experts of {experts}."
            found.add("expert_missing", where, detail, "List every expert once.")
        elif order.min() < 0:
            found.add("expert_out_of_range", where, "An expert's number is negative.", "Use logical ids.")
        rows[offset + int(key)] = (where, order)
    return rows


EXPORT = Export(
    name="megatron",
    content="order of experts for Megatron-core, which has no placement file: renumber the checkpoint's experts by it",
    engine="megatron-core 0.16.1",
    usage="permute router and experts of the checkpoint, layer by layer, with order = FILE's list",
    suffix=".json",
    rules=Rules(layers="keys", replicas=False, mtp="may"),
    sniff=_sniff,
    encode=_encode,
    decode=_decode,
    also=_also,
)
