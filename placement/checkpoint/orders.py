"""The new order of the experts of each layer, as a plan says it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from placement.exports.shared.groups import mixed_groups
from placement.plan.plan import Plan
from traces import ModelLayout, Violations
from traces.support.shown import layers_that

__all__ = ["Orders", "orders_of"]

Orders = dict[int, npt.NDArray[np.int64]]
"""By layer of the model, (E,): position p holds the old number of the expert that becomes number p."""

SHOWN = 20


def orders_of(plan: Plan, layout: ModelLayout, there: Iterable[int], found: Violations) -> Orders:
    """Return the orders; everything that keeps the plan from being one is recorded.

    Parameters
    ----------
    plan : Plan
    layout : ModelLayout
        Of the checkpoint's config.
    there : iterable of int
        Layers with experts in the checkpoint.
    found : Violations
    """
    table, experts = plan.physical_to_logical_map, plan.num_experts
    if layout.num_experts not in (None, experts):
        detail = f"The plan has {experts} experts per layer, the model {layout.num_experts}."
        found.add("num_experts_differ", "/plan/num_experts", detail, "Check that the plan is for this model.")
        return {}
    layers = plan.layer_ids.tolist()
    _check_layers(set(layers), layout, set(there), found)
    for row, layer in enumerate(layers):
        counts = np.bincount(table[row][table[row] >= 0], minlength=experts)
        place = f"/plan/physical_to_logical_map/{row}"
        if (counts > 1).any():
            detail = f"Layer {layer}: expert(s) {np.flatnonzero(counts > 1)[:8].tolist()} have replicas."
            remedy = "A checkpoint has every expert once: plan without redundant experts (as many slots as experts)."
            found.add("replicas", place, detail, remedy)
        if (table[row] < 0).any():
            detail = f"Layer {layer}: slots {np.flatnonzero(table[row] < 0)[:8].tolist()} are empty."
            found.add("empty_slot", place, detail, "Every rank owns as many experts: plan with E slots in all.")
        if len(found.found) >= SHOWN:
            break
    groups = layout.num_groups
    if groups is not None and table.shape[1] == experts and not found.found:
        for row in mixed_groups(table, groups)[:SHOWN].tolist():
            detail = (
                f"Layer {layers[row]}: the order mixes the {groups} groups of {experts // groups} experts that the "
                "router limits a token to; they are consecutive numbers, so other experts would be chosen."
            )
            remedy = "Plan with the experts of each group on one node or GPU, in blocks."
            found.add("groups_mixed", f"/plan/physical_to_logical_map/{row}", detail, remedy)
    return {} if found.found else {layer: table[row].astype(np.int64) for row, layer in enumerate(layers)}


def _check_layers(planned: set[int], layout: ModelLayout, there: set[int], found: Violations) -> None:
    """Record where plan, config and checkpoint differ in layers; layers for multi-token prediction may be left."""
    if other := sorted(planned - set(layout.all_moe_layers)):
        detail = f"{layers_that(other, 'is no MoE layer', 'are no MoE layers')} of the model's config."
        found.add("layer_unknown", "/plan/layer_ids", detail, "Check that the plan is for this model.")
    if missing := sorted(set(layout.moe_layers) - planned):
        detail = f"{layers_that(missing, 'is an MoE layer', 'are MoE layers')} of the model and not in the plan."
        found.add("layer_missing", "/plan/layer_ids", detail, "Plan from a trace with all layers.")
    if absent := sorted(planned & set(layout.all_moe_layers) - there):
        detail = f"{layers_that(absent, 'has', 'have')} no experts in the checkpoint."
        found.add("layer_absent", "/plan/layer_ids", detail, "Check that checkpoint and config belong together.")
    if more := sorted(layer for layer in there - set(layout.all_moe_layers) if layer < layout.num_layers):
        detail = f"{layers_that(more, 'has', 'have')} experts in the checkpoint, and none by its config."
        found.add("layer_unknown", "config.json", detail, "Check that checkpoint and config belong together.")
