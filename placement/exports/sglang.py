"""SGLang's initial expert location: a row for every layer of the model, and that one key only.

SGLang 0.5.23, ``sglang/srt/eplb/expert_location.py``: the object's keys become keyword arguments, so any other is a
TypeError; the maps of dense layers are computed too, so their rows must be complete. A name that does not end in .json
is taken for the JSON itself.
"""

from __future__ import annotations

import json

import numpy as np

from placement.engines.sglang_models import WITHOUT_PLACEMENT
from placement.exports.context import Context
from placement.exports.export import Export
from placement.exports.shared import axes
from placement.exports.shared.checks import engine_row
from placement.exports.shared.document import Document
from placement.exports.table import Rules, Table
from placement.support.fields import check_fields, integers
from traces import Violations

__all__ = ["EXPORT"]

KEY = "physical_to_logical_map"
RULES = Rules(layers="rows")


def _sniff(document: Document) -> bool:
    return KEY in document.fields and "schema_version" not in document.fields


def _encode(table: Table, context: Context) -> bytes:
    if context.model is None:
        raise AssertionError("arrange() refuses rows without a model")
    slots = np.tile(engine_row(table), (context.model.num_layers, 1))
    slots[table.layer_ids] = table.slots
    return json.dumps({KEY: slots.tolist()}).encode() + b"\n"


def _decode(document: Document, context: Context, found: Violations) -> Table | None:
    place = f"{document.name}#"
    check_fields(found, document.json, {KEY: list}, {}, place)
    if found.found:
        return None
    slots = integers(found, document.json[KEY], 2, f"{place}/{KEY}")
    if found.found:
        return None
    layers, notes = axes.rows(len(slots), context, document.name)
    experts = axes.experts_of(slots[layers], context)
    axes.check_fillers(found, slots, layers, experts, f"{place}/{KEY}")
    if found.found:
        return None
    return Table(
        slots=slots[layers],
        layer_ids=layers,
        num_experts=experts,
        num_gpus=None,
        places=tuple(f"{place}/{KEY}/{row}" for row in layers.tolist()),
        notes=(*notes, *axes.experts_note(experts, context)),
    )


def _warn(context: Context) -> tuple[str, ...]:
    """Say that SGLang's class of the model reads the file and ignores it."""
    name = "" if context.model is None else context.model.architecture
    if name not in WITHOUT_PLACEMENT:
        return ()
    return (
        f"SGLang 0.5.23 will ignore this file without a word: its class {name} takes no placement (it has no "
        "get_model_config_for_expert_location). Serve the model with another engine, or add that method to the class.",
    )


EXPORT = Export(
    name="sglang",
    content="SGLang --init-expert-location: JSON, a row for every layer of the model",
    engine="SGLang 0.5.23",
    usage="--init-expert-location FILE --ep-num-redundant-experts REDUNDANT",
    suffix=".json",
    rules=RULES,
    sniff=_sniff,
    encode=_encode,
    decode=_decode,
    warn=_warn,
    by_suffix=True,
)
