"""The project's own files: the plan itself, its arrays as ``.npz``, and a CSV with a line per slot."""

from __future__ import annotations

import json

import numpy as np

from placement.exports.context import Context
from placement.exports.export import Export
from placement.exports.shared.csv_text import has_header, read_numbers, write_numbers
from placement.exports.shared.document import Document
from placement.exports.shared.npz_bytes import npz_bytes, whole_array
from placement.exports.table import Rules, Table
from placement.plan.checks import MAX_SIZE
from placement.plan.plan import Plan
from traces import Violations
from traces.model.layout import MAX_LAYERS
from traces.rules import MAX_EXPERTS

__all__ = ["CSV", "NPZ", "PLAN"]

HEADER = ("layer", "gpu", "slot", "expert")
RULES = Rules(layers="keys", distinct=False, empty=True, mtp="may", covered=False)
MAX_CELLS = 64 << 20
SHOWN = 20
ARRAYS = {"physical_to_logical_map": 2, "layer_ids": 1, "num_experts": 0, "gpus_per_node": 1}


def _as_plan(table: Table) -> Plan:
    """Return the plan that a table comes from, or one that it makes."""
    if table.plan is not None and len(table.plan.layer_ids) == len(table.layer_ids):
        return table.plan
    return Plan.of(
        table.slots,
        layer_ids=table.layer_ids,
        num_experts=table.num_experts,
        gpus_per_node=(table.num_gpus or 1,) if table.plan is None else table.plan.gpus_per_node,
    )


def _table(plan: Plan, place: str) -> Table:
    return Table(
        slots=plan.physical_to_logical_map.astype(np.int64),
        layer_ids=plan.layer_ids,
        num_experts=plan.num_experts,
        num_gpus=plan.num_gpus,
        places=tuple(f"{place}#/physical_to_logical_map/{row}" for row in range(plan.num_layers)),
        plan=plan,
    )


def _sniff_plan(document: Document) -> bool:
    return {"schema_version", "physical_to_logical_map"} <= set(document.fields)


def _encode_plan(table: Table, context: Context) -> bytes:
    return json.dumps(_as_plan(table).as_dict(), allow_nan=False).encode() + b"\n"


def _decode_plan(document: Document, context: Context, found: Violations) -> Table | None:
    return _table(Plan.from_dict(document.json, f"{document.name}#"), document.name)


def _sniff_npz(document: Document) -> bool:
    return "physical_to_logical_map" in document.array_names


def _encode_npz(table: Table, context: Context) -> bytes:
    nodes = _as_plan(table).gpus_per_node
    arrays = {
        "layer_ids": table.layer_ids,
        "num_experts": np.array(table.num_experts),
        "gpus_per_node": np.array(nodes),
    }
    return npz_bytes({"physical_to_logical_map": table.slots.astype(np.int32)} | arrays)


def _decode_npz(document: Document, context: Context, found: Violations) -> Table | None:
    arrays = {name: whole_array(document, name, axes, found) for name, axes in ARRAYS.items()}
    if found.found:
        return None
    slots, nodes = arrays["physical_to_logical_map"], arrays["gpus_per_node"]
    if nodes.min() < 1 or nodes.max() > MAX_SIZE or slots.shape[1] % int(nodes.sum()):
        detail = f"{slots.shape[1]} slots do not divide by the nodes' GPUs."
        found.add("slots_not_divisible", f"{document.name}#/gpus_per_node", detail, "Correct the nodes.")
        return None
    plan = Plan.of(
        slots,
        layer_ids=arrays["layer_ids"],
        num_experts=int(arrays["num_experts"]),
        gpus_per_node=tuple(nodes.tolist()),
    )
    return _table(plan, document.name)


def _sniff_csv(document: Document) -> bool:
    return has_header(document, HEADER)


def _encode_csv(table: Table, context: Context) -> bytes:
    size = table.slots.shape[1] // (table.num_gpus or 1)
    cells = (
        (layer, slot // size, slot % size, expert)
        for layer, row in zip(table.layer_ids.tolist(), table.slots.tolist(), strict=True)
        for slot, expert in enumerate(row)
    )
    return write_numbers(HEADER, cells)


def _decode_csv(document: Document, context: Context, found: Violations) -> Table | None:
    table = read_numbers(document, HEADER, found)
    if found.found:
        return None
    rows = table.values
    allowed = np.array([[0, MAX_LAYERS - 1], [0, MAX_SIZE - 1], [0, MAX_SIZE - 1], [-1, MAX_EXPERTS - 1]])
    outside = (rows < allowed[:, 0]) | (rows > allowed[:, 1])
    for row, column in np.argwhere(outside)[:SHOWN].tolist():
        least, most = allowed[column]
        detail = f"{HEADER[column]} {rows[row, column]} is not in {least}..{most}."
        remedy = "-1 is the expert of an empty slot." if HEADER[column] == "expert" else "Correct the line."
        found.add("csv_range", table.place(row), detail, remedy)
    if found.found:
        return None
    layers, of_row = np.unique(rows[:, 0], return_inverse=True)
    gpus, size = int(rows[:, 1].max()) + 1, int(rows[:, 2].max()) + 1
    if len(layers) * gpus * size > MAX_CELLS:
        found.add("too_many_slots", document.name, f"{gpus} GPUs of {size} slots.", "Correct the table.")
        return None
    slots = np.full((len(layers), gpus * size), -1, dtype=np.int64)
    place = rows[:, 1] * size + rows[:, 2]
    cells = of_row.ravel() * slots.shape[1] + place
    _, first, again = np.unique(cells, return_index=True, return_inverse=True)
    for row in np.flatnonzero(first[again.ravel()] != np.arange(len(cells)))[:SHOWN].tolist():
        detail = f"Layer, GPU and slot are those of line {table.lines[first[again.ravel()[row]]]}."
        found.add("slot_twice", table.place(row), detail, "Keep one of the lines.")
    if found.found:
        return None
    slots.ravel()[cells] = rows[:, 3]
    return Table(
        slots=slots,
        layer_ids=layers,
        num_experts=int(slots.max()) + 1 if context.experts is None else context.experts,
        num_gpus=gpus,
        places=tuple(f"{document.name}#layer {layer}" for layer in layers.tolist()),
    )


PLAN = Export(
    name="plan",
    content="moe-placement's plan: JSON with score, bound and provenance",
    engine="moe-placement, schema version 1",
    usage="moe-placement evaluate FILE TRACE",
    suffix=".json",
    rules=RULES,
    sniff=_sniff_plan,
    encode=_encode_plan,
    decode=_decode_plan,
)
NPZ = Export(
    name="npz",
    content="arrays of a plan: .npz with physical_to_logical_map, layer_ids, num_experts, gpus_per_node",
    engine="NumPy",
    usage="numpy.load(FILE)",
    suffix=".npz",
    rules=RULES,
    sniff=_sniff_npz,
    encode=_encode_npz,
    decode=_decode_npz,
)
CSV = Export(
    name="csv",
    content="CSV layer,gpu,slot,expert, one line per slot; -1 is an empty one",
    engine="any spreadsheet",
    usage="open FILE",
    suffix=".csv",
    rules=RULES,
    sniff=_sniff_csv,
    encode=_encode_csv,
    decode=_decode_csv,
)
