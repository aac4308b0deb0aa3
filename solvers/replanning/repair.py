"""A plan to start from where the machine has changed: every GPU keeps what it can, and what was lost gets a slot."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.feasibility import broken_constraints
from placement.moves.carry import Carried
from placement.plan.plan import replicas_on_gpu
from solvers.searching.fill import fill_slots
from solvers.survival.effort import OutOfEffortError
from solvers.survival.repair import kept_alive

__all__ = ["repaired", "room_beside"]

Table = npt.NDArray[np.int32]


def repaired(problem: Problem, carried: Carried) -> Table | None:
    """Return a map of the problem that is near to what the GPUs hold; None where that fails.

    It fails where the map would break a constraint, or its repair takes too much effort.

    A GPU with fewer slots than before drops replicas of experts with most copies first. Experts without a copy go, the
    busiest first, into empty slots of the GPU with the least load, else in place of the replica that is needed least.
    Copies that something needs to survive are added, in place of what is not needed. Slots that are left get replicas
    where the engine wants every slot full.

    Parameters
    ----------
    problem : Problem
        On the GPUs that are there.
    carried : Carried
    """
    layers, gpus, slots = problem.num_layers, problem.num_gpus, problem.slots_per_gpu
    held = carried.table.reshape(layers, gpus, -1)
    table = np.full((layers, gpus, slots), -1, np.int32)
    for layer in range(layers):
        _repair_layer(table[layer], held[layer], problem.relative_load[layer], problem.capacity, problem.num_experts)
    flat = table.reshape(layers, -1)
    if problem.sizes.survival is not None and _all_there(flat, problem.num_experts):
        try:
            flat = kept_alive(problem, flat)
        except OutOfEffortError:
            return None
    if problem.full_slots and (flat < 0).any():
        flat = fill_slots(problem, flat)
    return None if broken_constraints(problem, flat).found else flat


def room_beside(before: Table, after: Table, num_experts: int, num_gpus: int) -> int:
    """Return for how many experts of a layer a GPU needs room beside its slots when a map is repaired.

    None, where every expert that is somewhere stays on one of its GPUs: then nothing that is overwritten is needed, and
    what arrives goes straight to its slot. Else as many as a GPU receives.

    Parameters
    ----------
    before : (L, G * B) int32
    after : (L, G * C) int32
    num_experts, num_gpus : int
    """
    held, wanted = (replicas_on_gpu(table, num_experts, num_gpus) > 0 for table in (before, after))
    if not (held.any(axis=2) & ~(held & wanted).any(axis=2)).any():
        return 0
    return int((wanted & ~held).sum(axis=1).max())


def _all_there(table: Table, num_experts: int) -> bool:
    return all(len(np.unique(row[row >= 0])) == num_experts for row in table)


def _repair_layer(
    table: Table,
    held: Table,
    load: npt.NDArray[np.float64],
    capacity: npt.NDArray[np.int64],
    num_experts: int,
) -> None:
    """Fill the slots (G, C) of a layer from what GPUs hold, (G, B)."""
    copies = np.bincount(held[held >= 0], minlength=num_experts)
    for gpu, (own, before) in enumerate(zip(table, held, strict=True)):
        kept = before[before >= 0].tolist()
        while len(kept) > capacity[gpu]:
            dropped = max(kept, key=lambda expert: (copies[expert] > 1, copies[expert], -load[expert]))
            kept.remove(dropped)
            copies[dropped] -= 1
        common = min(len(own), len(before))
        for slot in range(common):  # who can keeps its slot
            if before[slot] in kept:
                own[slot] = before[slot]
                kept.remove(int(before[slot]))
        own[np.flatnonzero(own < 0)[: len(kept)]] = kept
    for expert in sorted(np.flatnonzero(copies == 0).tolist(), key=lambda item: -load[item]):
        share = np.where(copies > 0, load / np.maximum(copies, 1), 0.0)
        on_gpu = np.where(table >= 0, share[table], 0.0).sum(axis=1)
        free = (table >= 0).sum(axis=1) < capacity
        if free.any():
            gpu = int(np.flatnonzero(free)[on_gpu[free].argmin()])
            slot = int(np.flatnonzero(table[gpu] < 0)[0])
        else:
            spare = np.where((table >= 0) & (copies[table] > 1), share[table] + 1e-9 * on_gpu[:, None], np.inf)
            gpu, slot = (int(item) for item in np.unravel_index(spare.argmin(), spare.shape))
            if not np.isfinite(spare[gpu, slot]):
                return  # the constraints leave no room; broken_constraints says so
            copies[table[gpu, slot]] -= 1
        table[gpu, slot] = expert
        copies[expert] = 1
