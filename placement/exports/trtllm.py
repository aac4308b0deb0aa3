"""TensorRT-LLM's load balancer: YAML with three keys, layers by their number in the model.

``MoeLoadBalancerConfig`` in ``tensorrt_llm/llmapi/llm_args.py`` (a strict pydantic model: other keys are refused). A
layer that is looked up and not there is a KeyError; with multi-token prediction, its layers are looked up too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from placement.exports.context import Context
from placement.exports.export import Export
from placement.exports.shared.axes import experts_note, experts_of
from placement.exports.shared.document import Document
from placement.exports.shared.yaml_text import read_yaml
from placement.exports.table import Rules, Table
from placement.support.fields import check_fields, integers
from traces import Violations
from traces.model.layout import MAX_LAYERS

__all__ = ["EXPORT"]

MAP = "initial_global_assignments"
RULES = Rules(layers="keys", mtp="must")


def _sniff(document: Document) -> bool:
    return MAP.encode() in document.data and "record_type" not in document.fields


def _encode(table: Table, context: Context) -> bytes:
    lines = [f"num_slots: {table.slots.shape[1]}", f"{MAP}:"]
    lines += [f"  {layer}: {row}" for layer, row in zip(table.layer_ids.tolist(), table.slots.tolist(), strict=True)]
    return "\n".join([*lines, "layer_updates_per_iter: 0", ""]).encode()


def _decode(document: Document, context: Context, found: Violations) -> Table | None:
    place = f"{document.name}#"
    content = read_yaml(document)
    check_fields(found, content, {"num_slots": int, MAP: dict}, {"layer_updates_per_iter": int}, place)
    if found.found:
        return None
    layers = _layers(content[MAP], f"{place}/{MAP}", found)
    if found.found:
        return None
    places = tuple(f"{place}/{MAP}/{layer}" for layer in layers)
    slots = [integers(found, content[MAP][layer], 1, where) for layer, where in zip(layers, places, strict=True)]
    for row, where in zip(slots, places, strict=True):
        if len(row) != content["num_slots"]:
            detail = f"{len(row)} slots, but num_slots is {content['num_slots']}."
            found.add("num_slots", where, detail, "List the expert of every slot.")
    if found.found:
        return None
    table = np.stack(slots)
    notes: tuple[str, ...] = ()
    if updates := content.get("layer_updates_per_iter", 0):
        notes = (f"layer_updates_per_iter is {updates}: the engine changes the placement while it runs.",)
    return Table(
        slots=table,
        layer_ids=np.array(layers, dtype=np.int64),
        num_experts=(experts := experts_of(table, context)),
        num_gpus=None,
        places=places,
        notes=(*notes, *experts_note(experts, context)),
    )


def _layers(content: dict[Any, Any], place: str, found: Violations) -> list[int]:
    """Return the layers in their order in the model."""
    for key in content:
        if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < MAX_LAYERS:
            detail = f"{key!r:.40} is no layer of a model: 0 to {MAX_LAYERS - 1}."
            found.add("layer_key", f"{place}/{key!s:.40}", detail, "Write layers as numbers, without quotes.")
    if not content:
        found.add("layer_key", place, "There is no layer.", "List every MoE layer.")
    return [] if found.found else sorted(content)


EXPORT = Export(
    name="trtllm",
    content="TensorRT-LLM load_balancer: YAML, MoE layers by number, MTP layers included",
    engine="TensorRT-LLM 1.0 to 1.3",
    usage="moe_config: {load_balancer: FILE} in the file of --extra_llm_api_options",
    suffix=".yaml",
    also_named=("tensorrt_llm",),
    rules=RULES,
    sniff=_sniff,
    encode=_encode,
    decode=_decode,
)
