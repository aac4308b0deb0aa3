"""DeepSpeed AutoEP's placement descriptor: experts per rank of one MoE layer, in the order that they are packed.

DeepSpeed 0.19.8, ``deepspeed/checkpoint/autoep_affine.py``. Ranks may hold different numbers of experts, and
replicas; every layer's metadata has a descriptor of its own. It says how a checkpoint is stored: loading puts experts
back in contiguous blocks (``autoep_universal.py``), so a plan is applied as for Megatron, by renumbering.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from placement.exports.context import Context
from placement.exports.export import Export
from placement.exports.shared import axes
from placement.exports.shared.document import Document
from placement.exports.shared.ranks import padded
from placement.exports.table import Rules, Table
from placement.support.fields import check_fields, integers
from placement.topology.links import MAX_GPUS
from traces import Violations

__all__ = ["EXPORT"]

FIELDS = {"version": int, "num_experts": int, "ep_size": int, "ranks": list}


def _sniff(document: Document) -> bool:
    return {"ep_size", "ranks"} <= set(document.fields)


def _row(table: Table, context: Context) -> int:
    """Return the row to write; -1 where the layer asked for is not there."""
    if context.layer is None:
        return 0
    rows = np.flatnonzero(table.layer_ids == context.layer)
    return int(rows[0]) if rows.size else -1


def _also(table: Table, context: Context, found: Violations) -> None:
    if _row(table, context) < 0:
        detail = f"There is no layer {context.layer}."
        found.add("layer_unknown", "/layer_ids", detail, f"Name one of {table.layer_ids.tolist()[:20]} with `layer`.")
    if context.layer is None and (differing := np.flatnonzero((table.slots != table.slots[0]).any(axis=1))).size:
        row = int(differing[0])
        detail = f"Layer {table.layer_ids[row]} differs from layer {table.layer_ids[0]}; a descriptor is for one layer."
        found.add("layers_differ", table.places[row], detail, "Write a file per layer with `layer`.")


def _encode(table: Table, context: Context) -> bytes:
    gpus = table.rows_of_gpus(_row(table, context))
    ranks = [{"rank": rank, "experts": experts} for rank, experts in enumerate(gpus)]
    content = {"version": 1, "num_experts": table.num_experts, "ep_size": len(ranks), "ranks": ranks}
    return json.dumps(content).encode() + b"\n"


def _decode(document: Document, context: Context, found: Violations) -> Table | None:
    place = f"{document.name}#"
    content = document.json
    check_fields(found, content, FIELDS, {}, place)
    if found.found:
        return None
    ranks = _experts_of_ranks(content["ranks"], content["ep_size"], f"{place}/ranks", found)
    if content["version"] != 1:
        found.add("version", f"{place}/version", f"{content['version']} is not 1.", "Convert the file.")
    slots = padded([ranks]) if ranks else np.zeros((1, 0), dtype=np.int64)
    if not found.found and not slots.size:
        found.add("expert_missing", f"{place}/ranks", "No rank has an expert.", "List the experts of every rank.")
    if found.found:
        return None
    layers, notes = axes.every_layer(context)
    return Table(
        slots=np.tile(slots, (len(layers), 1)),
        layer_ids=layers,
        num_experts=content["num_experts"],
        num_gpus=len(ranks),
        places=(f"{place}/ranks",) * len(layers),
        notes=notes,
    )


def _experts_of_ranks(listed: list[Any], size: int, place: str, found: Violations) -> list[list[int]]:
    """Return the experts of ranks 0, 1, ..., in whatever order they are listed."""
    if len(listed) != size or not 1 <= size <= MAX_GPUS:
        found.add("ep_size", place, f"{len(listed)} ranks, but ep_size is {size}.", "List every rank once.")
        return []
    ranks: dict[int, list[int]] = {}
    for position, entry in enumerate(listed):
        where = f"{place}/{position}"
        check_fields(found, entry, {"rank": int, "experts": list}, {}, where)
        if found.found:
            return []
        rank = entry["rank"]
        if not 0 <= rank < size or rank in ranks:
            detail = f"Rank {rank} is not in 0..{size - 1}, or occurs twice."
            found.add("rank_out_of_range", f"{where}/rank", detail, "List every rank once.")
            return []
        empty = entry["experts"] == []
        ranks[rank] = [] if empty else integers(found, entry["experts"], 1, f"{where}/experts").tolist()
        if any(expert < 0 for expert in ranks[rank]):
            detail = "An expert's number is negative."
            found.add("expert_out_of_range", f"{where}/experts", detail, "Use logical ids.")
    return [ranks[rank] for rank in range(size)]


EXPORT = Export(
    name="deepspeed",
    content="DeepSpeed AutoEP placement descriptor: JSON, experts per rank of one MoE layer",
    engine="DeepSpeed 0.19.8",
    usage='only as "expert_placement" of a checkpoint stored so; to apply a plan, renumber: export for megatron',
    suffix=".json",
    rules=Rules(layers="none", empty=True, mtp="may"),
    sniff=_sniff,
    encode=_encode,
    decode=_decode,
    also=_also,
)
