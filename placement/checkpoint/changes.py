"""What happens to each tensor of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement.checkpoint.files import Checkpoint
from placement.checkpoint.orders import Orders
from placement.checkpoint.roles import Listed, Moves, Role, Table, roles_of
from placement.checkpoint.stack import Stack
from traces import ModelLayout, Violations

__all__ = ["Change", "changes_of", "explained"]

REMEDY = "This version has no rule for this layout, and copies nothing that may be indexed by expert."
SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Change:
    """What happens to one tensor.

    Attributes
    ----------
    name : str
        Its new name.
    order : (E,) int64, or None
        Parts of its first axis, in their new order.
    parts : int
        Equal parts of the tensor; those behind the first E stay.
    numbers : (E,) int64, or None
        New number of each expert, for a tensor whose values are experts.
    """

    name: str
    order: npt.NDArray[np.int64] | None = None
    parts: int = 1
    numbers: npt.NDArray[np.int64] | None = None


Explained = dict[int, dict[str, Role]]
"""By layer and key: what the tensors of MoE layers are."""


def explained(checkpoint: Checkpoint, stack: Stack, layout: ModelLayout, experts: int, found: Violations) -> Explained:
    """Return what every tensor of the MoE layers is; what no rule explains is recorded, and so are gaps in lists."""
    tensors = {name: tensor for shard in checkpoint.shards for name, tensor in shard.tensors.items()}
    zero, shared = layout.zero_experts or 0, layout.num_shared_experts or 0
    all_roles: Explained = {}
    for layer, keys in sorted(stack.layers.items()):
        inner = {path: tensors[key] for path, key in keys.items()}
        roles = roles_of(inner, experts, zero, shared)
        for path, role in roles.items():
            if role is None and len(found.found) < SHOWN:
                detail = (
                    f"Layer {layer}: {keys[path]!r:.120} {list(inner[path].shape)} is a part of the MoE block, and"
                    f" nothing says what it is to the {experts} experts."
                )
                found.add("tensor_unknown", str(checkpoint.folder), detail, REMEDY)
        _check_complete(layer, roles, experts, str(checkpoint.folder), found)
        all_roles[layer] = {keys[path]: role for path, role in roles.items() if role is not None}
    return all_roles


def _check_complete(layer: int, roles: Mapping[str, Role | None], experts: int, place: str, found: Violations) -> None:
    """Record experts that are missing from a list, or too many, and layers without a router."""
    listed: dict[tuple[str, str], set[int]] = {}
    routed = False
    for path, role in roles.items():
        if isinstance(role, Listed):
            listed.setdefault((role.head, role.tail), set()).add(role.expert)
        routed |= isinstance(role, Moves | Table) and "experts." not in path
    for (head, tail), numbers in listed.items():
        if numbers != set(range(experts)) and len(found.found) < SHOWN:
            wrong = sorted(numbers ^ set(range(experts)))[:8]
            detail = f"Layer {layer}: {head}N{tail} is there for {len(numbers)} experts, not for {experts} ({wrong})."
            found.add("experts_differ", place, detail, "Check that the checkpoint is whole, and of this model.")
    if not routed and len(found.found) < SHOWN:
        detail = f"Layer {layer} has experts, and no router that could be found by its name."
        found.add("no_router", place, detail, REMEDY)


def changes_of(all_roles: Explained, orders: Orders) -> dict[str, Change]:
    """Return the changes, by the tensors' old names; tensors that stay as they are have none."""
    changes = {}
    for layer, order in orders.items():
        numbers = np.argsort(order)
        for key, role in all_roles[layer].items():
            if isinstance(role, Listed):
                old = f"{role.head}{role.expert}{role.tail}"
                new = f"{role.head}{numbers[role.expert]}{role.tail}"
                changes[key] = Change(name=key.removesuffix(old) + new)
            elif isinstance(role, Moves):
                changes[key] = Change(name=key, order=order, parts=role.parts)
            elif isinstance(role, Table):
                changes[key] = Change(name=key, numbers=numbers)
    return changes
