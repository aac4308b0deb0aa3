"""Rules that engines share, checked before a file is written and after one is read: all violations at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from placement.engines.layout import default_slots
from placement.exports.context import TAKERS, Context
from placement.exports.table import Rules, Table
from placement.plan.plan import Plan
from traces import InputError, Violations
from traces.rules import MAX_EXPERTS
from traces.support.shown import layers_that

__all__ = [
    "arrange",
    "check_layers",
    "check_machine",
    "check_options",
    "check_table",
    "engine_row",
    "layers_lacking",
]

SHOWN = 20
NO_MODEL = "Without the model's layers (`model`), it is not checked that every MoE layer is there."


def engine_row(table: Table) -> npt.NDArray[np.int64]:
    """Return the slots of a layer that nobody plans, (S,): in order, and again from the first expert."""
    gpus = table.num_gpus or 1
    row = default_slots("modulo", table.num_experts, gpus, table.slots.shape[1] // gpus)
    return np.array(row, dtype=np.int64)


def check_options(name: str, rules: Rules, context: Context, found: Violations, *, writing: bool = False) -> None:
    """Record what the caller says for formats of another kind: it would have no effect.

    Parameters
    ----------
    name : str
        Of the format.
    rules : Rules
        Of the format.
    context : Context
    found : Violations
    writing : bool
    """
    for option, formats in TAKERS.items():
        if getattr(context, option) is not None and name not in formats:
            detail = f"Files of {name} have no use for {option}."
            found.add("option_unused", f"/{option}", detail, f"Leave it out; {', '.join(formats)} take it.")
    if writing and context.fill_missing and not rules.covered:
        detail = f"Files of {name} may lack layers, so they have no use for fill_missing."
        remedy = "Leave it out; formats that hold every MoE layer, such as sglang, take it."
        found.add("option_unused", "/fill_missing", detail, remedy)


def check_machine(plan: Plan, context: Context, place: str, found: Violations) -> None:
    """Record a machine of the caller that is not the one that a plan of ours names."""
    if context.gpus_per_node is None or context.gpus_per_node == plan.gpus_per_node:
        return
    nodes = f"nodes of {', '.join(map(str, plan.gpus_per_node[:16]))} GPUs"
    if context.num_gpus != plan.num_gpus:
        detail = f"The plan is for {plan.num_gpus} GPUs ({nodes}), the topology has {context.num_gpus}."
        found.add("num_gpus_differ", f"{place}#/num_gpus", detail, "Name the machine that the plan was made for.")
    else:
        detail = f"The plan is for {nodes}, the topology has {', '.join(map(str, context.gpus_per_node[:16]))}."
        remedy = "Name the machine that the plan was made for; `evaluate` tells what the plan costs on another one."
        found.add("nodes_differ", f"{place}#/gpus_per_node", detail, remedy)


def arrange(plan: Plan, rules: Rules, context: Context, found: Violations) -> Table:
    """Return the rows that a file of this format has for a plan: MTP layers left out or kept, missing ones filled.

    Violations of the layers are recorded in `found`.
    """
    model = context.model
    layers = plan.layer_ids.tolist()
    slots = plan.physical_to_logical_map.astype(np.int64)
    places = [f"/physical_to_logical_map/{row}" for row in range(len(layers))]
    notes: list[str] = []
    keep = np.ones(len(layers), dtype=bool)
    unrecorded = _unrecorded(plan)
    if model is not None:
        mtp = set(model.mtp_layers)
        if context.without_mtp:
            keep = np.array([layer not in mtp for layer in layers], dtype=bool)
            if not keep.any():
                detail = "The plan has layers for multi-token prediction only."
                found.add("layer_missing", "/layer_ids", detail, "Leave out `without_mtp`.")
                keep[:] = True
    elif context.without_mtp or context.fill_missing:
        option = "without_mtp" if context.without_mtp else "fill_missing"
        detail = f"{option} needs the model's layers."
        found.add("model_unknown", "/layer_ids", detail, "Give `model`, the model's config or layers.")
    table = Table(
        slots=slots[keep],
        layer_ids=plan.layer_ids[keep],
        num_experts=plan.num_experts,
        num_gpus=plan.num_gpus,
        places=tuple(place for place, kept in zip(places, keep.tolist(), strict=True) if kept),
        plan=plan,
    )
    if model is not None and model.num_experts not in (None, plan.num_experts):
        detail = f"The plan has {plan.num_experts} experts, the model {model.num_experts}."
        found.add("num_experts_differ", "/num_experts", detail, "Check that the config is this model's.")
    if model is None and rules.covered:
        notes.append(NO_MODEL)
        if rules.layers == "rows":
            detail = "The file has a row for every layer of the model, and nobody says how many there are."
            found.add("model_unknown", "/layer_ids", detail, "Give `model`, the model's config or layers.")
        elif rules.layers == "ordinals" and (np.diff(table.layer_ids) > 1).any():
            detail = f"Layers {table.layer_ids.tolist()[:SHOWN]} have gaps, and the file counts MoE layers only."
            found.add("layers_with_gaps", "/layer_ids", detail, "Give `model` to say that they are all.")
        elif rules.layers == "ordinals" and unrecorded:
            detail = (
                f"Layers {sorted(unrecorded)[:SHOWN]} had no counts in the recording: they are MoE layers, which the "
                "file counts, or dense ones."
            )
            found.add("model_unknown", "/layer_ids", detail, "Give `model`, the model's config or layers.")
    if model is not None and rules.covered:
        there = unrecorded | set(table.layer_ids.tolist())
        wanted = [layer for layer in _expected(rules, context) if context.fill_missing or layer in there]
        table, filled = _filled(table, wanted)
        notes += filled
    check_layers(table, rules, context, "", found)
    return replace(table, notes=tuple(notes))


def check_layers(table: Table, rules: Rules, context: Context, place: str, found: Violations) -> None:
    """Record layers that the model has and the file lacks, and the other way round."""
    model = context.model
    if model is None:
        return
    where = f"{place}#/layer_ids" if place else "/layer_ids"
    layers = set(table.layer_ids.tolist())
    if other := sorted(layers - set(model.all_moe_layers)):
        detail = f"{layers_that(other, 'is no MoE layer', 'are no MoE layers')} of the model."
        found.add("layer_unknown", where, detail, "Check the config, and the layer ids.")
    if rules.mtp == "no" and rules.covered and (given := sorted(set(model.mtp_layers) & layers)):
        detail = f"Layers {given} are for multi-token prediction, which this file does not place."
        found.add("mtp_not_loaded", where, detail, "Leave them out with `without_mtp`.")
    if not (rules.covered and rules.layers != "none"):
        return
    if missing := sorted(set(_expected(rules, context)) - layers):
        mtp = sorted(set(missing) & set(model.mtp_layers))
        detail = f"MoE layers {missing[:SHOWN]} of the model have no placement."
        remedy = "Plan from a trace with all layers, or give them the contiguous layout with `fill_missing`."
        if mtp:
            detail += f" {mtp} are for multi-token prediction."
            remedy += " If the engine runs without it, add `without_mtp`."
        found.add("layer_missing", where, detail, remedy)


def layers_lacking(table: Table, rules: Rules, context: Context) -> tuple[str, ...]:
    """Return the note on MoE layers that the model has and a file lacks that may lack them."""
    if rules.covered or context.model is None:
        return ()
    missing = sorted(set(context.model.moe_layers) - set(table.layer_ids.tolist()))
    if not missing:
        return ()
    return (
        f"MoE layers {missing[:SHOWN]} of the model have no placement, which engines want: export them with "
        "`fill_missing`, plan from a trace with all layers, or correct the model's layers if they are dense.",
    )


def check_table(table: Table, rules: Rules, found: Violations) -> None:
    """Record ids out of range, missing experts, and slots and replicas that the engine does not take."""
    slots, experts = table.slots, table.num_experts
    for row, slot in np.argwhere((slots < -1) | (slots >= experts))[:SHOWN].tolist():
        detail = f"Slot {slot}: expert {slots[row, slot]} is not in 0..{experts - 1}."
        found.add("expert_out_of_range", table.places[row], detail, "Use logical ids.")
    if not rules.empty:
        for row in np.flatnonzero((slots == -1).any(axis=1))[:SHOWN].tolist():
            detail = (
                f"Slots {np.flatnonzero(slots[row] == -1)[:8].tolist()} are empty, which the engine has no word for."
            )
            remedy = "Fill them with replicas, or plan with fewer slots per GPU."
            found.add("empty_slot", table.places[row], detail, remedy)
    inside = np.where((slots >= 0) & (slots < experts), slots, experts)
    if not 1 <= experts <= MAX_EXPERTS or slots.shape[1] < experts:
        detail = f"{slots.shape[1]} slots per layer for {experts} experts."
        remedy = f"Every expert needs a slot in every layer; {MAX_EXPERTS} experts are the most."
        found.add("expert_missing", table.places[0], detail, remedy)
        return
    counts = np.stack([np.bincount(row, minlength=experts + 1)[:experts] for row in inside])
    for row in np.flatnonzero((counts == 0).any(axis=1))[:SHOWN].tolist():
        missing = np.flatnonzero(counts[row] == 0)
        detail = f"Expert(s) {missing[:8].tolist()}{'...' if missing.size > 8 else ''} have no slot."
        found.add("expert_missing", table.places[row], detail, "Every expert needs a slot in every layer.")
    if not rules.replicas:
        for row in np.flatnonzero((counts > 1).any(axis=1))[:SHOWN].tolist():
            copied = np.flatnonzero(counts[row] > 1)[:8].tolist()
            detail = f"Expert(s) {copied} have replicas, which the engine does not take."
            found.add("replicas", table.places[row], detail, "Plan with as many slots as experts.")
    if table.num_gpus is not None:
        _check_gpus(table, rules, inside, found)


def _check_gpus(table: Table, rules: Rules, inside: npt.NDArray[np.int64], found: Violations) -> None:
    """Record slots that the GPUs don't divide, and two replicas on one GPU."""
    gpus = table.num_gpus or 1
    layers, slots = inside.shape
    if slots % gpus:
        detail = f"{slots} slots do not divide by {gpus} GPUs."
        found.add("slots_not_divisible", table.places[0], detail, "Give every GPU as many slots; check `topology`.")
        return
    if not rules.distinct:
        return
    ordered = np.sort(inside.reshape(layers, gpus, -1), axis=2)
    twice = (ordered[:, :, 1:] == ordered[:, :, :-1]) & (ordered[:, :, 1:] < table.num_experts)
    for row, gpu in np.argwhere(twice.any(axis=2))[:SHOWN].tolist():
        expert = int(ordered[row, gpu, 1:][twice[row, gpu]][0])
        detail = f"GPU {gpu} holds expert {expert} twice: one of the replicas is never used, or used wrongly."
        found.add("replicas_on_one_gpu", table.places[row], detail, "Move the replica to another GPU.")


def _expected(rules: Rules, context: Context) -> tuple[int, ...]:
    """Return the layers that the engine looks up."""
    if context.model is None:
        raise InputError.of("model_unknown", "/layer_ids", "The model's layers are not known.", "Give `model`.")
    with_mtp = rules.mtp == "must" and not context.without_mtp
    return context.model.all_moe_layers if with_mtp else context.model.moe_layers


def _unrecorded(plan: Plan) -> set[int]:
    """Return the layers that a plan lacks because its recording had no counts of them, as the solver noted."""
    sources = plan.provenance.get("trace")
    listed = [source.get("unrecorded") for source in sources if isinstance(source, Mapping)] if sources else []
    return {layer for layers in listed if isinstance(layers, list | tuple) for layer in layers if type(layer) is int}


def _filled(table: Table, expected: Sequence[int]) -> tuple[Table, list[str]]:
    """Add the contiguous layout for the layers that are missing."""
    missing = sorted(set(expected) - set(table.layer_ids.tolist()))
    if not missing:
        return table, []
    row = engine_row(table)
    layers = np.concatenate([table.layer_ids, np.array(missing, dtype=np.int64)])
    order = np.argsort(layers)
    slots = np.concatenate([table.slots, np.tile(row, (len(missing), 1))])
    places = [*table.places, *(f"/layer {layer}" for layer in missing)]
    note = (
        f"{layers_that(missing, 'is not in the plan; it has', 'are not in the plan; they have')} the contiguous layout."
    )
    inserted = replace(
        table,
        slots=slots[order],
        layer_ids=layers[order],
        places=tuple(places[place] for place in order.tolist()),
        plan=None,
    )
    return inserted, [note]
