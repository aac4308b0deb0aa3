"""The machine that is left when some of its GPUs are gone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement.topology.topology import Topology
from traces import InputError

__all__ = ["remaining_topology"]


def remaining_topology(topology: Topology, gpus: npt.NDArray[np.integer[Any]]) -> Topology:
    """Return the topology of some GPUs of a machine, their ranks and nodes counted anew, in the same order.

    Parameters
    ----------
    topology : Topology
    gpus : (n,) integers
        Rising.

    Raises
    ------
    InputError
        If none is left.
    """
    if not len(gpus):
        raise InputError.of("survive_none_left", "/failed", "No GPU is left.", "Let fewer fail.")

    def square(array: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64] | None:
        return None if array is None else array[np.ix_(gpus, gpus)]

    own: dict[str, Any] = {
        name: None if (array := getattr(topology, name)) is None else array[gpus]
        for name in ("speed", "memory_gb", "slots")
    }
    return Topology(
        name=f"{topology.name}, {len(gpus)} GPUs left",
        node_of_gpu=np.unique(topology.node_of_gpu[gpus], return_inverse=True)[1].astype(np.int64),
        hop_cost=topology.hop_cost[np.ix_(gpus, gpus)],
        bandwidth_gb_s=square(topology.bandwidth_gb_s),
        latency_us=square(topology.latency_us),
        host_of_gpu=np.unique(topology.host_of_gpu[gpus], return_inverse=True)[1].astype(np.int64),
        notes=topology.notes,
        **own,
    )
