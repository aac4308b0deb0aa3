"""What makes a map a plan: sizes that fit each other, ids in range, every expert somewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from traces import Violations

__all__ = ["MAX_SIZE", "check_plan"]

MAX_SIZE = 32_767  # GPUs, slots, experts: ids fit 16 bits
SHOWN = 20


def check_plan(
    table: npt.NDArray[Any], layer_ids: npt.NDArray[Any], sizes: Mapping[str, int], gpus_per_node: tuple[int, ...]
) -> None:
    """Refuse what is no plan.

    Parameters
    ----------
    table : (L, S) integers
    layer_ids : (L,) integers
    sizes : mapping of str to int
        `num_gpus`, `slots_per_gpu` and `num_experts`.
    gpus_per_node : tuple of int

    Raises
    ------
    InputError
        With a pointer for each violation.
    """
    found = Violations()
    for name, value in sizes.items():
        if not 1 <= value <= MAX_SIZE:
            found.add("plan_size", f"/{name}", f"{name} is {value}, not 1 to {MAX_SIZE}.", "Correct the sizes.")
    sizes_fit = not found.found
    gpus, slots = sizes["num_gpus"], sizes["num_gpus"] * sizes["slots_per_gpu"]
    if sum(gpus_per_node) != gpus or min(gpus_per_node, default=0) < 1:
        detail = f"Nodes of {list(gpus_per_node)} GPUs do not add up to {gpus}."
        found.add("gpus_per_node", "/gpus_per_node", detail, "List the size of every node.")
    if table.ndim != 2 or table.dtype.kind not in "iu" or table.shape != (len(layer_ids), slots):
        found.add(
            "map_shape",
            "/physical_to_logical_map",
            f"Expected integers of shape (layers, slots) = ({len(layer_ids)}, {slots}); got {table.shape}, "
            f"dtype {table.dtype}.",
            "One row per entry of layer_ids, num_gpus * slots_per_gpu slots each.",
        )
    elif sizes_fit:
        _check_rows(found, table, sizes["num_experts"])
    if len(layer_ids) == 0 or (np.diff(layer_ids) <= 0).any() or layer_ids[0] < 0:
        found.add("layer_ids_order", "/layer_ids", "Layer ids must rise and not be negative.", "List each layer once.")
    found.raise_if_any()


def _check_rows(found: Violations, table: npt.NDArray[Any], num_experts: int) -> None:
    for row, slot in np.argwhere((table < -1) | (table >= num_experts))[:SHOWN]:
        found.add(
            "expert_out_of_range",
            f"/physical_to_logical_map/{row}/{slot}",
            f"Expert {table[row, slot]} is not in -1..{num_experts - 1}.",
            "Use logical ids; -1 for an empty slot.",
        )
    inside = np.where((table >= 0) & (table < num_experts), table, num_experts)
    for row, experts in enumerate(inside):
        counts = np.bincount(experts, minlength=num_experts + 1)[:num_experts]
        if (missing := np.flatnonzero(counts == 0)).size:
            found.add(
                "expert_missing",
                f"/physical_to_logical_map/{row}",
                f"Expert(s) {missing[:8].tolist()}{'...' if missing.size > 8 else ''} have no slot.",
                "Every expert needs at least one slot in every layer.",
            )
