"""Plans prepared ahead: what has to be loaded where when GPUs are gone, and the plan on those that are left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, Topology
from placement.plan.plan import replicas_on_gpu
from placement.survival.remaining import remaining_topology
from placement.survival.rule import SurvivalRule
from solvers.survival.kernels import restore_layer
from solvers.survival.rule import alive_of

__all__ = ["Degraded", "Reload", "degraded", "largest_load"]

Floats = npt.NDArray[np.float64]
Table = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Reload:
    """A slot that gets another expert.

    Attributes
    ----------
    layer_id, expert : int
    gpu : int
        Rank on the whole machine.
    slot : int
        Within the GPU.
    replaces : int
        Expert that was there, of which another copy is left; -1 for an empty slot.
    lost : bool
        Whether no copy is left on any GPU, so that it comes from a host or a disk.
    """

    layer_id: int
    expert: int
    gpu: int
    slot: int
    replaces: int
    lost: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Degraded:
    """What to do when some GPUs are gone.

    Attributes
    ----------
    failed : tuple of int
        GPUs.
    ranks : tuple of int
        GPUs that are left: rank r of the plan is ``ranks[r]`` of the whole machine.
    lost : int
        Experts of all layers without a live copy.
    possible : bool
        Whether the slots that are left hold all experts.
    reloads : tuple of Reload
        What has to be loaded; nothing else moves.
    plan : Plan or None
        On the ranks that are left; None where it is not possible.
    largest_load : float or None
        Largest GPU load over the mean of those that are left, mean over layers.
    """

    failed: tuple[int, ...]
    ranks: tuple[int, ...]
    lost: int
    possible: bool
    reloads: tuple[Reload, ...]
    plan: Plan | None
    largest_load: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary, without the plan."""
        own = {name: getattr(self, name) for name in ("failed", "ranks", "lost", "possible", "largest_load")}
        return own | {"reloads": [vars(each) for each in self.reloads]}


def degraded(plan: Plan, topology: Topology, failed: Sequence[int], load: Floats | None = None) -> Degraded:
    """Return the plan on what is left with the fewest slots changed: one for each expert that is lost.

    A lost expert takes an empty slot, or that of a copy whose expert has another one; where the GPUs with such copies
    are not those that the lost experts can go to, others make room, along the shortest paths.

    Parameters
    ----------
    plan : Plan
    topology : Topology
    failed : sequence of int
        GPUs.
    load : (L, E) float64, optional
        Busy experts go first, and copies with little load are given up; all alike by default.

    Raises
    ------
    InputError
        If no GPU is left.
    """
    ranks = np.setdiff1d(np.arange(plan.num_gpus), np.asarray(failed, dtype=np.int64))
    left = remaining_topology(topology, ranks)
    loads = np.ones((plan.num_layers, plan.num_experts)) if load is None else np.asarray(load, dtype=np.float64)
    before = plan.physical_to_logical_map.reshape(plan.num_layers, plan.num_gpus, -1)[:, ranks]
    slots = before.shape[2]
    room = np.full(len(ranks), slots) if left.slots is None else np.minimum(left.slots, slots)
    rule = SurvivalRule(domain=np.arange(len(ranks)), room=room, failures=0, lost=0)
    table = np.ascontiguousarray(before, np.int32).copy()
    missing = replicas_on_gpu(table.reshape(plan.num_layers, -1), plan.num_experts, len(ranks)).sum(axis=2) == 0
    possible = True
    for layer, own in enumerate(table):
        lost = np.flatnonzero(missing[layer])
        lost = np.ascontiguousarray(lost[np.argsort(-loads[layer, lost], kind="stable")], np.int64)
        alive = alive_of(own.ravel(), rule, plan.num_experts, slots)
        possible &= bool(restore_layer(lost, own, room.astype(np.int64), loads[layer], alive))
    about: dict[str, Any] = {"failed": tuple(int(gpu) for gpu in failed), "ranks": tuple(ranks.tolist())}
    about |= {"lost": int(missing.sum()), "possible": possible}
    if not possible:
        return Degraded(reloads=(), plan=None, largest_load=None, **about)
    reloads = tuple(
        Reload(
            layer_id=int(plan.layer_ids[layer]),
            expert=int(table[layer, gpu, slot]),
            gpu=int(ranks[gpu]),
            slot=int(slot),
            replaces=int(before[layer, gpu, slot]),
            lost=bool(missing[layer, table[layer, gpu, slot]]),
        )
        for layer, gpu, slot in np.argwhere(table != before).tolist()
    )
    made = Plan.of(
        table.reshape(plan.num_layers, -1),
        layer_ids=plan.layer_ids,
        num_experts=plan.num_experts,
        gpus_per_node=left.gpus_per_node,
        provenance={"solver": "degraded", "ranks": ranks.tolist(), "failed": list(about["failed"])},
    )
    return Degraded(reloads=reloads, plan=made, largest_load=largest_load(made, left, loads), **about)


def largest_load(plan: Plan, topology: Topology, load: Floats) -> float:
    """Return the largest GPU load over its fair share, mean over layers, with an even split over replicas."""
    share = load / np.maximum(load.sum(axis=1, keepdims=True), 1e-300) / plan.replicas
    on_gpu = (plan.replicas_on_gpu * share[:, :, None]).sum(axis=1) / topology.fair_share
    return float(on_gpu.max(axis=1).mean())
