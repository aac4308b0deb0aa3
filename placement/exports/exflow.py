"""ExFlow's placement: CSV ``Expert,Node``, expert e of MoE layer l being number ``l * E + e``.

A node is a GPU there. https://arxiv.org/abs/2401.08383
"""

from __future__ import annotations

import numpy as np

from placement.exports.context import Context
from placement.exports.export import Export
from placement.exports.shared import axes
from placement.exports.shared.csv_text import has_header, read_numbers, write_numbers
from placement.exports.shared.document import Document
from placement.exports.shared.ranks import slots_of_ranks
from placement.exports.table import Rules, Table
from placement.topology.links import MAX_GPUS
from traces import Violations

__all__ = ["EXPORT"]

HEADER = ("Expert", "Node")


def _sniff(document: Document) -> bool:
    return has_header(document, HEADER)


def _encode(table: Table, context: Context) -> bytes:
    numbered = [
        (row * table.num_experts + expert, gpu)
        for row in range(len(table.slots))
        for gpu, experts in enumerate(table.rows_of_gpus(row))
        for expert in experts
    ]
    return write_numbers(HEADER, sorted(numbered))


def _decode(document: Document, context: Context, found: Violations) -> Table | None:
    name = document.name
    table = read_numbers(document, HEADER, found)
    if found.found:
        return None
    rows, total = table.values, len(table.values)
    layers = len(context.layer_ids) if context.layer_ids is not None else None
    if layers is None and context.model is not None and context.experts is None:
        layers = len(context.model.moe_layers)
    experts = context.experts if context.experts is not None else total // layers if layers else None
    if experts is None:
        detail = "The file numbers experts through all layers, and nobody says how many a layer has."
        found.add("num_experts_unknown", name, detail, "Give `num_experts`, or `model`.")
        return None
    order = np.argsort(rows[:, 0], kind="stable")
    ordered = rows[order]
    if experts < 1 or total % experts or not np.array_equal(ordered[:, 0], np.arange(total)):
        # The first number in rising order that is not the next one: it occurs twice, or the one before it is missing.
        wrong = np.flatnonzero(ordered[:, 0] != np.arange(total))
        where = f" Number {ordered[wrong[0], 0]} stands where {wrong[0]} is due." if wrong.size else ""
        detail = f"{total} rows do not name each of {experts} experts per layer once, from number 0.{where}"
        place = table.place(int(order[wrong[0]])) if wrong.size else name
        found.add("expert_missing", place, detail, "Check the file, and the number of experts.")
        return None
    if (outside := np.flatnonzero((rows[:, 1] < 0) | (rows[:, 1] >= MAX_GPUS))).size:
        detail = f"Node {rows[outside[0], 1]} is not in 0..{MAX_GPUS - 1}."
        found.add("rank_out_of_range", table.place(int(outside[0])), detail, "Correct the line.")
        return None
    slots, ranks = slots_of_ranks(ordered[:, 1].reshape(-1, experts), context, name, found)
    if found.found:
        return None
    ids, notes = axes.ordinals(len(slots), context, name)
    return Table(
        slots=slots,
        layer_ids=ids,
        num_experts=experts,
        num_gpus=ranks,
        places=tuple(f"{name}#layer {row}" for row in range(len(slots))),
        notes=notes,
    )


EXPORT = Export(
    name="exflow",
    content="ExFlow: CSV Expert,Node, experts numbered through all MoE layers, no replicas",
    engine="ExFlow (arXiv 2401.08383)",
    usage="the placement file of ExFlow's scripts",
    suffix=".csv",
    rules=Rules(layers="ordinals", replicas=False, empty=True, mtp="may", order=False),
    sniff=_sniff,
    encode=_encode,
    decode=_decode,
)
