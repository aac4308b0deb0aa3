"""Failure domains: the GPUs that go together when a unit fails."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement.survival.survive import FailureUnit
from placement.topology.topology import Topology

__all__ = ["domain_name", "failure_domains"]


def failure_domains(topology: Topology, unit: FailureUnit) -> npt.NDArray[np.int64]:
    """Return the failure domain of each GPU, (G,): 0, 1, ... along the ranks.

    Parameters
    ----------
    topology : Topology
    unit : {"gpus", "hosts", "nodes", "links"}
        ``links``: a link that fails cuts off a node from the others; on a single node, a GPU. GPUs of several nodes
        that lose their own link are within a node that may be lost, so nodes are enough there.
    """
    alone = np.arange(topology.num_gpus, dtype=np.int64)
    if unit == "gpus":
        return alone
    if unit == "hosts":
        inverse: npt.NDArray[np.int64] = np.unique(topology.host_of_gpu, return_inverse=True)[1].astype(np.int64)
        return inverse
    return alone if unit == "links" and topology.num_nodes == 1 else topology.node_of_gpu


def domain_name(topology: Topology, unit: FailureUnit) -> str:
    """Return what a failure domain is called: ``GPU``, ``host`` or ``node``."""
    if unit == "links":
        return "GPU" if topology.num_nodes == 1 else "node"
    return {"gpus": "GPU", "hosts": "host", "nodes": "node"}[unit]
