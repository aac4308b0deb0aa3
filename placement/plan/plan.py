"""The artefact: which logical expert every physical slot holds, in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from traces import InputError, Violations

__all__ = ["Plan", "Termination", "gap_of"]

Reason = Literal["optimal", "feasible", "infeasible", "no_plan"]
MAX_SIZE = 32_767
Limit = Literal["time", "work", "gap", "no_improvement", "cancelled"]


def gap_of(score: float | None, bound: float | None) -> float | None:
    """Return ``(score - bound) / score``; None where one is unknown, 0 where the score is 0."""
    if score is None or bound is None:
        return None
    return max(0.0, (score - bound) / score) if score else 0.0


@dataclass(frozen=True, kw_only=True)
class Termination:
    """Why a search stopped, apart from how good its plan is (after MathOpt's result type).

    Attributes
    ----------
    reason : {"optimal", "feasible", "infeasible", "no_plan"}
        ``optimal``: proven. ``feasible``: keeps every constraint. ``infeasible``: a plan is there, but misses a
        constraint that the detail names. ``no_plan``: there is none.
    limit : {"time", "work", "gap", "no_improvement", "cancelled"} or None
        What ended the search; None if it ran to its end.
    detail : str
    deterministic : bool
        Whether the same seed and limits give the same plan again. A time limit can't promise that.
    """

    reason: Reason
    limit: Limit | None = None
    detail: str = ""
    deterministic: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A placement of experts, in the terms of the serving engines.

    Attributes
    ----------
    physical_to_logical_map : (L, S) int32
        Logical expert of each slot; slot s is on GPU ``s // slots_per_gpu``; -1 is an empty slot.
    layer_ids : (L,) int64
        Model layer of each row.
    num_experts : int
        Logical experts per layer, E.
    num_gpus, slots_per_gpu : int
        G and C, ``S = G * C``.
    gpus_per_node : tuple of int
        Sizes of the nodes.
    score, bound : float or None
        Objective value, and a value that no plan can beat; None where unknown.
    termination : Termination or None
    provenance : mapping
        Trace digest, solver, parameters, seed, version, objective, constraints, topology.
    warnings : tuple of str
        What the reader of the plan must know, such as a load cap that was missed.
    """

    physical_to_logical_map: npt.NDArray[np.int32]
    layer_ids: npt.NDArray[np.int64]
    num_experts: int
    num_gpus: int
    slots_per_gpu: int
    gpus_per_node: tuple[int, ...]
    score: float | None = None
    bound: float | None = None
    termination: Termination | None = None
    provenance: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        table = np.asarray(self.physical_to_logical_map)
        found = Violations()
        slots = self.num_gpus * self.slots_per_gpu
        for name in ("num_gpus", "slots_per_gpu", "num_experts"):
            if not 1 <= getattr(self, name) <= MAX_SIZE:
                detail = f"{name} is {getattr(self, name)}, not 1 to {MAX_SIZE}."
                found.add("plan_size", f"/{name}", detail, "Correct the sizes.")
        sizes_fit = not found.found
        if sum(self.gpus_per_node) != self.num_gpus or min(self.gpus_per_node, default=0) < 1:
            detail = f"Nodes of {list(self.gpus_per_node)} GPUs do not add up to {self.num_gpus}."
            found.add("gpus_per_node", "/gpus_per_node", detail, "List the size of every node.")
        if table.ndim != 2 or table.dtype.kind not in "iu" or table.shape != (len(self.layer_ids), slots):
            found.add(
                "map_shape",
                "/physical_to_logical_map",
                f"Expected integers of shape (layers, slots) = ({len(self.layer_ids)}, {slots}); got {table.shape}, "
                f"dtype {table.dtype}.",
                "One row per entry of layer_ids, num_gpus * slots_per_gpu slots each.",
            )
        elif sizes_fit:
            self._check_rows(found, table)
        if len(self.layer_ids) == 0 or (np.diff(self.layer_ids) <= 0).any() or self.layer_ids[0] < 0:
            detail = "Layer ids must rise and not be negative."
            found.add("layer_ids_order", "/layer_ids", detail, "List each layer once, in order.")
        found.raise_if_any()
        frozen = table.astype(np.int32)
        frozen.flags.writeable = False
        layers = np.array(self.layer_ids, dtype=np.int64)
        layers.flags.writeable = False
        object.__setattr__(self, "physical_to_logical_map", frozen)
        object.__setattr__(self, "layer_ids", layers)

    def _check_rows(self, found: Violations, table: npt.NDArray[Any]) -> None:
        for row, slot in np.argwhere((table < -1) | (table >= self.num_experts))[:20]:
            found.add(
                "expert_out_of_range",
                f"/physical_to_logical_map/{row}/{slot}",
                f"Expert {table[row, slot]} is not in -1..{self.num_experts - 1}.",
                "Use logical ids; -1 for an empty slot.",
            )
        inside = np.where((table >= 0) & (table < self.num_experts), table, self.num_experts)
        for row, experts in enumerate(inside):
            counts = np.bincount(experts, minlength=self.num_experts + 1)[: self.num_experts]
            if (missing := np.flatnonzero(counts == 0)).size:
                found.add(
                    "expert_missing",
                    f"/physical_to_logical_map/{row}",
                    f"Expert(s) {missing[:8].tolist()}{'...' if missing.size > 8 else ''} have no slot.",
                    "Every expert needs at least one slot in every layer.",
                )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Plan)
            and np.array_equal(self.physical_to_logical_map, other.physical_to_logical_map)
            and np.array_equal(self.layer_ids, other.layer_ids)
            and (self.num_experts, self.num_gpus, self.slots_per_gpu, self.gpus_per_node)
            == (other.num_experts, other.num_gpus, other.slots_per_gpu, other.gpus_per_node)
            and (self.score, self.bound, self.termination) == (other.score, other.bound, other.termination)
            and dict(self.provenance) == dict(other.provenance)
            and self.warnings == other.warnings
        )

    __hash__ = None  # type: ignore[assignment]  # unhashable, as Python itself has it

    @property
    def num_layers(self) -> int:
        """Number of layers, L."""
        return len(self.layer_ids)

    @property
    def gap(self) -> float | None:
        """``(score - bound) / score``; None where the bound is unknown, 0 where the score is 0."""
        return gap_of(self.score, self.bound)

    @cached_property
    def gpu_of_slot(self) -> npt.NDArray[np.int64]:
        """GPU of each slot, (S,)."""
        return np.arange(self.num_gpus * self.slots_per_gpu) // self.slots_per_gpu

    @cached_property
    def replicas_on_gpu(self) -> npt.NDArray[np.int64]:
        """``replicas_on_gpu[l, e, g]``: replicas of expert e that GPU g holds, (L, E, G)."""
        return replicas_on_gpu(self.physical_to_logical_map, self.num_experts, self.num_gpus)

    @cached_property
    def replicas(self) -> npt.NDArray[np.int64]:
        """Replicas of each expert, (L, E)."""
        counts: npt.NDArray[np.int64] = self.replicas_on_gpu.sum(axis=2)
        return counts

    @cached_property
    def gpu_of_expert(self) -> npt.NDArray[np.int64]:
        """GPU of each expert, (L, E); only for plans without replicas."""
        if (self.replicas > 1).any():
            layer, expert = np.argwhere(self.replicas > 1)[0]
            raise InputError.of(
                "has_replicas",
                f"/physical_to_logical_map/{layer}",
                f"Expert {expert} has {self.replicas[layer, expert]} replicas, so it has no single GPU.",
                "Use replicas_on_gpu.",
            )
        gpu: npt.NDArray[np.int64] = self.replicas_on_gpu.argmax(axis=2)
        return gpu

    def replacing(self, **changes: Any) -> Plan:
        """Return a replica with some attributes changed."""
        return replace(self, **changes)


def replicas_on_gpu(table: npt.NDArray[Any], num_experts: int, num_gpus: int) -> npt.NDArray[np.int64]:
    """Count the replicas of each expert on each GPU, (L, E, G), from a map (L, S)."""
    layers, slots = table.shape
    counts = np.zeros((layers, num_experts, num_gpus), np.int64)
    layer, slot = np.nonzero(table >= 0)
    np.add.at(counts, (layer, table[layer, slot], slot // (slots // num_gpus)), 1)
    return counts
