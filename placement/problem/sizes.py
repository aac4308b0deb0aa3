"""How much there is and where it may go: layers, experts, slots, pins, and the budget of replicas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from placement.problem.constraints import Constraints, Group, Pin
from placement.survival.domains import failure_domains
from placement.survival.least import least_lost
from placement.survival.rule import SurvivalRule
from placement.topology.topology import Topology

__all__ = ["Sizes"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sizes:
    """The sizes of a problem; what the loads are does not matter here.

    Attributes
    ----------
    layer_ids : (L,) int64
        Model layer of each row.
    num_experts : int
        E.
    topology : Topology
    slots_per_gpu : int
        C.
    constraints : Constraints
    expert_bytes : int or None
    """

    layer_ids: npt.NDArray[np.int64]
    num_experts: int
    topology: Topology
    slots_per_gpu: int
    constraints: Constraints
    expert_bytes: int | None

    @property
    def num_layers(self) -> int:
        """Number of layers, L."""
        return len(self.layer_ids)

    @property
    def num_gpus(self) -> int:
        """Number of GPUs, G."""
        return self.topology.num_gpus

    @cached_property
    def capacity(self) -> npt.NDArray[np.int64]:
        """Usable slots of each GPU, (G,)."""
        full = np.full(self.num_gpus, self.slots_per_gpu)
        return full if self.topology.slots is None else np.minimum(full, self.topology.slots)

    @cached_property
    def layer_row(self) -> dict[int, int]:
        """Row of each model layer."""
        return {int(layer): row for row, layer in enumerate(self.layer_ids)}

    def rows_of(self, item: Pin | Group) -> slice | int:
        """Return the row of the item's layer, or all rows."""
        return slice(None) if item.layer_id is None else self.layer_row[item.layer_id]

    @cached_property
    def allowed(self) -> npt.NDArray[np.bool_]:
        """``allowed[l, e, g]``: whether the exclusions let a replica of e be on g, (L, E, G)."""
        mask = np.ones((self.num_layers, self.num_experts, self.num_gpus), dtype=bool)
        for pin in self.constraints.forbidden:
            mask[self.rows_of(pin), pin.expert, pin.gpu] = False
        return mask

    @cached_property
    def pinned(self) -> npt.NDArray[np.bool_]:
        """Whether expert e is pinned to GPU g in layer l, (L, E, G)."""
        pinned = np.zeros((self.num_layers, self.num_experts, self.num_gpus), dtype=bool)
        for pin in self.constraints.pins:
            pinned[self.rows_of(pin), pin.expert, pin.gpu] = True
        return pinned

    @cached_property
    def spare_replicas(self) -> int:
        """Replicas beyond one of each expert that fit the slots of all layers together, whatever the budget."""
        return self.num_layers * (int(self.capacity.sum()) - self.num_experts)

    @cached_property
    def replica_budget(self) -> int | None:
        """Replicas beyond one of each expert that all layers may have together; None: as many as fit the slots."""
        constraints = self.constraints
        if constraints.extra_replicas is not None or constraints.extra_bytes is None:
            return constraints.extra_replicas
        return constraints.extra_bytes // (self.expert_bytes or 1)  # sizes are checked

    @property
    def replicas_limited(self) -> bool:
        """Whether the budget of replicas is smaller than what the slots have room for."""
        budget = self.replica_budget
        return budget is not None and budget < self.spare_replicas

    @cached_property
    def survival(self) -> SurvivalRule | None:
        """What has to survive, settled for these slots; None where nothing is asked."""
        asked = self.constraints.survive
        if asked is None:
            return None
        domain = failure_domains(self.topology, asked.unit)
        room = np.bincount(domain, weights=self.capacity).astype(np.int64)
        lost = least_lost(room, self.num_experts) if asked.lost is None else asked.lost
        return SurvivalRule(domain=domain, room=room, failures=asked.failures, lost=lost)

    @cached_property
    def is_free(self) -> bool:
        """Whether no rule but the slots themselves rules out an arrangement."""
        constraints = self.constraints
        even = bool((self.capacity == self.slots_per_gpu).all())
        return (
            even
            and not self.replicas_limited
            and not (constraints.pins or constraints.forbidden or constraints.groups or constraints.survive)
        )
