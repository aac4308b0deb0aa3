"""Maps of slots, as plans or bare, held against the sizes of a problem."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement.plan.plan import Plan
from placement.problem.sizes import Sizes
from traces import Violations

__all__ = ["checked_table"]

Table = npt.NDArray[np.integer[Any]]
SHOWN = 8


def checked_table(sizes: Sizes, plan: Plan | Table) -> Table:
    """Return the map of a plan, or the map itself; see `Problem.table_of`.

    Raises
    ------
    InputError
        With every violation.
    """
    found = Violations()
    if isinstance(plan, Plan):
        _check_plan(sizes, plan, found)
        found.raise_if_any()  # a plan has all its experts
        return plan.physical_to_logical_map
    table, shape = np.asarray(plan), (sizes.num_layers, sizes.num_gpus * sizes.slots_per_gpu)
    if table.shape != shape or table.dtype.kind not in "iu":
        detail = f"Expected integers of shape (layers, slots) = {shape}, got {table.dtype} of {table.shape}."
        found.add("map_shape", "/table", detail, "Give a map of this problem.")
        found.raise_if_any()
    for layer, slot in np.argwhere((table < -1) | (table >= sizes.num_experts))[:SHOWN].tolist():
        detail = f"Expert {table[layer, slot]} is not in -1..{sizes.num_experts - 1}."
        found.add("expert_out_of_range", f"/table/{layer}/{slot}", detail, "Use logical ids; -1 for an empty slot.")
    found.raise_if_any()
    present = np.zeros((len(table), sizes.num_experts + 1), dtype=bool)  # the last column is that of empty slots
    np.put_along_axis(present, table.astype(np.int64), values=True, axis=1)
    for layer, expert in np.argwhere(~present[:, :-1])[:SHOWN].tolist():
        detail = f"Expert {expert} of layer {sizes.layer_ids[layer]} has no slot."
        found.add("expert_missing", f"/table/{layer}", detail, "Every expert needs a slot in every layer.")
    found.raise_if_any()
    return table


def _check_plan(sizes: Sizes, plan: Plan, found: Violations) -> None:
    """Record sizes of a plan that are not the problem's; how its GPUs form nodes may differ."""
    for name in ("num_experts", "num_gpus", "slots_per_gpu"):
        own, wanted = getattr(plan, name), getattr(sizes, name)
        if own != wanted:
            detail = f"The plan's {name} is {own}, that of the problem {wanted}."
            found.add("plan_differs", f"/plan/{name}", detail, "Give a plan of this problem.")
    if plan.layer_ids.tolist() != sizes.layer_ids.tolist():
        detail = f"The plan has {plan.num_layers} layers, which are not the {sizes.num_layers} of the problem."
        found.add("plan_differs", "/plan/layer_ids", detail, "Give a plan of this problem.")
