"""A plan carried over to the machine as it is now: GPUs are dead, others came."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.plan.plan import Plan, replicas_on_gpu
from placement.time.machine import Machine
from placement.topology.topology import Topology
from traces import InputError, Violations

__all__ = ["Carried", "carry", "machine_without", "topology_without"]

Ints = npt.NDArray[np.int64]
SHOWN = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Carried:
    """What the GPUs of a machine hold of a plan that ran on some of them.

    Attributes
    ----------
    table : (L, G * C) int32
        Experts in the slots of each GPU that is there now; -1 on GPUs that are new.
    rank_before : (G,) int64
        The rank that each GPU had; -1 where it is new.
    num_experts : int
    topology : Topology
        Of the GPUs that are there now.
    dead : tuple of int
        Ranks that are gone.
    """

    table: npt.NDArray[np.int32]
    rank_before: Ints
    num_experts: int
    topology: Topology
    dead: tuple[int, ...]

    @property
    def slots_per_gpu(self) -> int:
        """Slots that each GPU had, C."""
        return int(self.table.shape[1]) // len(self.rank_before)

    @property
    def changed(self) -> bool:
        """Whether the machine is another one than the plan ran on."""
        return bool(self.dead) or bool((self.rank_before < 0).any())

    @property
    def lost(self) -> Ints:
        """Experts that no GPU holds any more: layer row and expert, (n, 2)."""
        replicas = replicas_on_gpu(self.table, self.num_experts, len(self.rank_before))
        return np.argwhere(replicas.sum(axis=2) == 0)


def carry(running: Plan, topology: Topology, dead: tuple[int, ...] = ()) -> Carried:
    """Carry a plan over to a machine.

    Parameters
    ----------
    running : Plan
    topology : Topology
        The ranks that ran the plan, dead ones included, and after them those that are new.
    dead : tuple of int
        Ranks that are gone, or about to go.

    Raises
    ------
    InputError
        If the machine has fewer ranks than the plan, or a dead one is none of them.
    """
    found = Violations()
    if topology.num_gpus < running.num_gpus:
        detail = f"The plan runs on {running.num_gpus} GPUs, and the machine has {topology.num_gpus}."
        remedy = "Name the machine with all ranks that ran it, and those that are gone as dead_gpus."
        found.add("fewer_gpus", "/topology", detail, remedy)
    if beyond := [gpu for gpu in dead if not 0 <= gpu < running.num_gpus]:
        detail = f"Rank(s) {beyond[:SHOWN]} are none of the {running.num_gpus} that run the plan."
        found.add("gpu_range", "/dead_gpus", detail, f"Give ranks of 0 to {running.num_gpus - 1}.")
    if len(set(dead)) < len(dead):
        found.add("gpu_twice", "/dead_gpus", "A rank is listed twice.", "List each once.")
    found.raise_if_any()
    left = _left(topology.num_gpus, dead)
    before = np.where(left < running.num_gpus, left, -1)
    slots = running.physical_to_logical_map.reshape(running.num_layers, running.num_gpus, -1)
    table = np.full((running.num_layers, len(left), running.slots_per_gpu), -1, np.int32)
    table[:, before >= 0] = slots[:, before[before >= 0]]
    return Carried(
        table=table.reshape(running.num_layers, -1),
        rank_before=before,
        num_experts=running.num_experts,
        topology=topology_without(topology, dead),
        dead=tuple(sorted(dead)),
    )


def topology_without(topology: Topology, dead: tuple[int, ...]) -> Topology:
    """Return a topology without some of its GPUs; the others are numbered anew, in order."""
    if not dead:
        return topology
    left = _left(topology.num_gpus, dead)
    vectors = {name: getattr(topology, name) for name in ("speed", "memory_gb", "slots", "host_of_gpu")}
    squares = {name: getattr(topology, name) for name in ("hop_cost", "bandwidth_gb_s", "latency_us")}
    changed: dict[str, Any] = {name: None if item is None else item[left] for name, item in vectors.items()}
    changed |= {name: None if item is None else item[np.ix_(left, left)] for name, item in squares.items()}
    node = np.unique(topology.node_of_gpu[left], return_inverse=True)[1]
    return replace(topology, name=_name(topology.name, dead), node_of_gpu=node.astype(np.int64), **changed)


def machine_without(machine: Machine, dead: tuple[int, ...]) -> Machine:
    """Return a machine without some of its GPUs."""
    if not dead:
        return machine
    left = _left(machine.num_gpus, dead)
    node = np.unique(machine.nodes[left], return_inverse=True)[1].tolist()
    gpus = tuple(machine.gpus[gpu] for gpu in left)
    uplinks = (
        tuple(machine.uplink_gb_s[number] for number in np.unique(machine.nodes[left])) if machine.uplink_gb_s else ()
    )
    return replace(machine, name=_name(machine.name, dead), gpus=gpus, node_of_gpu=tuple(node), uplink_gb_s=uplinks)


def _left(gpus: int, dead: tuple[int, ...]) -> Ints:
    left = np.setdiff1d(np.arange(gpus), dead)
    if not len(left):
        raise InputError.of("no_gpus", "/dead_gpus", "No GPU is left.", "Name the new ones: a larger machine.")
    return left


def _name(name: str, dead: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, sorted(dead)[:SHOWN])) + (", ..." if len(dead) > SHOWN else "")
    return f"{name} without {shown}"
