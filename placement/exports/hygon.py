"""HYGON's vLLM plug-in, version 2: a map per model class, MoE layers counted from 0.

``vllm_hcu`` static EPLB plans: metadata that disagrees with the running model is refused, and the layers for
multi-token prediction are a model of their own. With pipeline parallelism, versions with pull request 69 have a map
per stage, under ``CLASS#pp_rank=0`` and so on, and the layers for multi-token prediction in the last. Later versions
refuse pipelines.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.exports.context import Context
from placement.exports.export import Export
from placement.exports.shared import axes
from placement.exports.shared.document import Document
from placement.exports.table import Rules, Table
from placement.support.fields import check_fields, integers
from traces import InputError, Violations

__all__ = ["EXPORT"]

FORMAT = "vllm_offline_eplb_physical_to_logical_by_model"
MAP = "physical_to_logical_map"
STAGE = "#pp_rank="
COUNTS = ("num_moe_layers", "num_logical_experts", "num_physical_experts", "num_redundant_experts")
FIELDS = {"record_kind": str, "model_name": str, "model_class": str, MAP: list} | dict.fromkeys(COUNTS, int)


def _sniff(document: Document) -> bool:
    return document.fields.get("format") == FORMAT


def _mtp_rows(table: Table, context: Context) -> Any:
    """Return which rows are layers for multi-token prediction, (L,) bool."""
    mtp = () if context.model is None else context.model.mtp_layers
    return np.isin(table.layer_ids, np.array(mtp, dtype=np.int64))


def _also(table: Table, context: Context, found: Violations) -> None:
    needed = ["model_class", "model_name"]
    if _mtp_rows(table, context).any():
        needed.append("mtp_model_class")
    for name in needed:
        if not getattr(context, name):
            detail = f"The file names the engine's {name.replace('_', ' ')}, which nobody said."
            found.add("model_class", f"/{name}", detail, f"Give `{name}`: DeepseekV3ForCausalLM, say.")
    sizes, model = context.pipeline_stages, context.model
    if sizes is not None and (model is None or min(sizes, default=0) < 1 or sum(sizes) != model.num_layers):
        layers = "is not known" if model is None else f"has {model.num_layers}"
        detail = f"Stages of {list(sizes[:16])} layers are {sum(sizes)} in all, and the model {layers}."
        remedy = "Give `model`, and how many of its layers each stage has, dense ones included."
        found.add("pipeline_stages", "/pipeline_stages", detail, remedy)


def _maps(table: Table, context: Context) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Yield the key of each map, and which rows it has, (L,) bool: by model, and by stage of a pipeline."""
    mtp = _mtp_rows(table, context)
    sizes = context.pipeline_stages
    if sizes is None:
        yield str(context.model_class), ~mtp
        yield str(context.mtp_model_class), mtp
        return
    ends = np.cumsum(sizes)
    stage = np.searchsorted(ends, table.layer_ids, side="right")
    for rank in range(len(sizes)):
        yield f"{context.model_class}{STAGE}{rank}", ~mtp & (stage == rank)
    yield f"{context.mtp_model_class}{STAGE}{len(sizes) - 1}", mtp


def _encode(table: Table, context: Context) -> bytes:
    maps = {}
    for model_class, kept in _maps(table, context):
        if not kept.any():
            continue
        slots = table.slots[kept]
        counts = (len(slots), table.num_experts, slots.shape[1], slots.shape[1] - table.num_experts)
        record = {"record_kind": "proposal", "model_name": context.model_name, "model_class": model_class}
        maps[model_class] = record | dict(zip(COUNTS, counts, strict=True)) | {MAP: slots.tolist()}
    return json.dumps({"version": 2, "format": FORMAT, "model_maps": maps}).encode() + b"\n"


def _decode(document: Document, context: Context, found: Violations) -> Table | None:
    place = f"{document.name}#"
    content = document.json
    check_fields(found, content, {"version": int, "format": str, "model_maps": dict}, {}, place)
    if found.found:
        return None
    if content["version"] != 2 or content["format"] != FORMAT:
        found.add("version", f"{place}/version", f"This is not version 2 of {FORMAT}.", "Convert the file.")
    names = _chosen(content["model_maps"], context, f"{place}/model_maps")
    parts, places, experts = [], [], None
    for name in names:
        where = f"{place}/model_maps/{name}"
        record = content["model_maps"][name]
        check_fields(found, record, FIELDS, {}, where)
        if found.found:
            return None
        slots = integers(found, record[MAP], 2, f"{where}/{MAP}")
        _check_record(record, name, slots.shape, where, found)
        if experts not in (None, record["num_logical_experts"]):
            detail = f"{record['num_logical_experts']} experts, elsewhere {experts}."
            found.add("num_experts_differ", f"{where}/num_logical_experts", detail, "Correct the number.")
        experts = record["num_logical_experts"]
        parts.append(slots)
        places += [f"{where}/{MAP}/{row}" for row in range(len(slots))]
    if len({part.shape[1] for part in parts}) > 1:
        detail = "The models have different numbers of slots."
        found.add("num_slots", f"{place}/model_maps", detail, "Read one of them with `model_class`.")
    if found.found:
        return None
    slots = np.concatenate(parts)
    layers, notes = axes.ordinals(len(slots), context, document.name)
    return Table(
        slots=slots, layer_ids=layers, num_experts=experts or 0, num_gpus=None, places=tuple(places), notes=notes
    )


def _chosen(maps: dict[str, Any], context: Context, place: str) -> list[str]:
    """Return the maps to read: those that the caller names, or the only one; the main model's first."""
    named = [name for name in (context.model_class, context.mtp_model_class) if name]
    stages = {name: _stages(maps, name, place) for name in {key.partition(STAGE)[0] for key in maps}}
    if missing := [name for name in named if name not in stages]:
        detail = f"There is no map for {missing}."
        raise InputError.of("model_class", place, detail, f"Name one of {sorted(stages)[:8]}.")
    if named:
        return [key for name in named for key in stages[name]]
    if len(stages) != 1:
        detail = f"Maps of {len(stages)} models: {sorted(stages)[:8]}."
        remedy = "Name one with `model_class`, and the one for multi-token prediction with `mtp_model_class`."
        raise InputError.of("model_class", place, detail, remedy)
    return next(iter(stages.values()))


def _stages(maps: dict[str, Any], name: str, place: str) -> list[str]:
    """Return the keys of a model: its own, or those of its pipeline stages in their order.

    Raises
    ------
    InputError
        If a stage is missing, or there are stages beside a map of the whole model.
    """
    keys = [key for key in maps if key.partition(STAGE)[0] == name]
    if keys == [name]:
        return keys
    expected = [f"{name}{STAGE}{rank}" for rank in range(len(keys))]
    others = Counter(base for base, mark, _ in (key.partition(STAGE) for key in maps) if mark and base != name)
    if len(keys) == 1 and keys[0] in {f"{name}{STAGE}{stages - 1}" for stages in others.values()}:
        return keys  # layers for multi-token prediction, which are in the last stage only
    if set(keys) != set(expected):
        detail = f"The stages of {name[:60]} are {sorted(keys)[:8]}."
        remedy = f"Give a map of the model, or one per stage: {expected[0][:80]} and so on."
        raise InputError.of("pipeline_stages", place, detail, remedy)
    return expected


def _check_record(record: dict[str, Any], name: str, shape: tuple[int, ...], place: str, found: Violations) -> None:
    """Record metadata that the engine would find to disagree."""
    layers, slots = shape
    experts, redundant = record["num_logical_experts"], record["num_redundant_experts"]
    for key, expected in (("num_moe_layers", layers), ("num_physical_experts", slots), ("model_class", name)):
        if record[key] != expected:
            found.add("metadata", f"{place}/{key}", f"{record[key]!r:.60} is not {expected!r}.", "Correct it.")
    if experts + redundant != slots or redundant < 0:
        detail = f"{experts} experts and {redundant} redundant ones are not {slots} slots."
        found.add("metadata", f"{place}/num_redundant_experts", detail, "Correct the numbers.")
    if record["record_kind"] != "proposal":
        detail = f"A record of kind {record['record_kind']!r:.40} is a recording; the engine loads proposals."
        found.add("record_kind", f"{place}/record_kind", detail, "Write 'proposal' if this is what to load.")
    if not record["model_name"]:
        found.add("metadata", f"{place}/model_name", "The name is empty.", "Name the model.")


EXPORT = Export(
    name="hygon",
    content="HYGON vLLM plug-in, version 2: JSON, a map per model class, MoE layers counted from 0",
    engine="HYGON vllm_hcu, static EPLB version 2",
    usage='--enable-eplb --eplb-config \'{"num_redundant_experts": REDUNDANT, "expert_map_path": "FILE"}\'',
    suffix=".json",
    rules=Rules(layers="ordinals", mtp="may"),
    sniff=_sniff,
    encode=_encode,
    decode=_decode,
    also=_also,
)
