"""The time of an exchange over its tiers: within nodes, between nodes, and uplinks that the ranks of a node share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement.time.bottlenecks import Way
from placement.time.exchange import HIERARCHICAL, Exchange
from placement.time.machine import Machine
from placement.time.passes import PassLoad
from traces.model.shape import ModelShape

__all__ = ["tiers_ms", "uplink_ms"]

Floats = npt.NDArray[np.float64]


def tiers_ms(
    machine: Machine, inside: Exchange, across: Exchange, load: PassLoad, way: Way, shape: ModelShape
) -> Floats:
    """Return the time of one direction of each layer, (L,) milliseconds: the slower tier at its busiest rank.

    What is sent in the dispatch is received in the combine, so both wait for the larger of the two. What SMs forward
    between nodes counts by its mean: where the loads of ranks were twice as uneven, DeepEP's time stayed (DeepSpeed
    issue 8213). A hierarchical all-to-all goes through both tiers, one after the other (Tutel, arXiv 2206.03382;
    DeepSpeed-MoE, arXiv 2201.05596).

    Parameters
    ----------
    machine : Machine
    inside, across : Exchange
        Within a node, and between nodes.
    load : PassLoad
    way : {"dispatch", "combine"}
    shape : ModelShape
    """
    within = inside.ms(way, 1, load.inside.max(axis=(1, 2)), shape)
    if machine.num_nodes == 1:
        return within
    busiest, forwarded = load.across.max(axis=(1, 2)), load.inside[:, :, 0].mean(axis=1)
    between = across.ms(way, machine.num_nodes, busiest, shape, forwarded=forwarded)
    if machine.has_uplinks:
        none = np.zeros(len(busiest))
        start = across.ms(way, machine.num_nodes, none, shape, forwarded=none)
        between = np.fmax(between, start + uplink_ms(machine, load.across, across.copy_gb(way, shape)))
    return within + between if inside.backend == HIERARCHICAL else np.fmax(within, between)


def uplink_ms(machine: Machine, across: npt.NDArray[np.integer[Any]], copy_gb: float) -> Floats:
    """Return what the busiest uplink takes that the ranks of a node share, (L,) milliseconds.

    Parameters
    ----------
    machine : Machine
    across : (L, G, 2) int64
        Copies that each rank sends to and gets from other nodes.
    copy_gb : float
        Gigabytes of one.
    """
    first = np.unique(machine.nodes, return_index=True)[1]
    of_node = np.add.reduceat(across, first, axis=1).max(axis=2)  # (L, N): each direction by itself
    found: Floats = (of_node * (copy_gb * 1e3) / np.array(machine.uplink_gb_s)).max(axis=1)
    return found
