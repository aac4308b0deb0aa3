"""The time of collectives over all ranks or those of a node: measured within nodes, data sheets beyond."""

from __future__ import annotations

from typing import Final

import numpy as np

from placement.time.catalogue import exchange_for
from placement.time.exchange import Curve
from placement.time.gpus import Gpu
from placement.time.machine import Machine

__all__ = ["OF_DATA_SHEET", "VECTOR_BYTES", "everywhere_ms", "inside_ms", "slowest"]

OF_DATA_SHEET: Final = 0.7  # of a link's data sheet that collectives reach
VECTOR_BYTES: Final = 2.0  # of each number that travels in a collective: bfloat16


def slowest(machine: Machine) -> Gpu:
    """Return the GPU of the machine with the slowest links within a node."""
    return min(machine.gpus, key=lambda gpu: gpu.nvlink_gb_s)


def inside_ms(machine: Machine, name: str, gb: float, size: int) -> tuple[float, bool]:
    """Return the time of a collective within nodes of so many GPUs, and whether it was measured.

    Parameters
    ----------
    machine : Machine
    name : str
        Back end of the coefficient files: ``nccl_all_gather``, ``nccl_reduce_scatter``.
    gb : float
        Gigabytes of the whole message, of which each rank holds its share.
    size : int
        GPUs of a node.
    """
    exchange = exchange_for(slowest(machine), name)
    known = [curve for curve in exchange.curves if curve.vector_bytes == VECTOR_BYTES]
    if not exchange.measured or not known:
        return gb * (1 - 1 / size) * 1e3 / (OF_DATA_SHEET * slowest(machine).nvlink_gb_s) + 0.03, False

    def away(curve: Curve) -> float:
        return float(abs(np.log(curve.gpus / size)))

    return float(min(known, key=away).ms(gb)), True


def everywhere_ms(machine: Machine, name: str, gb: float) -> tuple[float, bool]:
    """Return the time of a collective over all ranks, and whether its part within nodes was measured.

    Each GPU's port brings its share of what other nodes hold, which then spreads within the node.
    """
    sizes = np.bincount(machine.nodes)
    found, measured = inside_ms(machine, name, gb, int(sizes.min()))
    if machine.num_nodes > 1:
        abroad = gb * (1 - sizes / machine.num_gpus) / sizes  # of each GPU of a node
        found += float((abroad[machine.nodes] / machine.network_gb_s).max()) * 1e3 / OF_DATA_SHEET
    return found, measured
