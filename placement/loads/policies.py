"""Replica policies: as compiled loops know them, and what share of an expert's tokens each replica serves."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

__all__ = ["FAIR", "POLICIES", "SAME_GPU", "SAME_NODE", "replica_share"]

FAIR, SAME_GPU, SAME_NODE = 0, 1, 2
POLICIES: Mapping[str, int] = MappingProxyType({"fair": FAIR, "same_gpu": SAME_GPU, "same_node": SAME_NODE})

Array = npt.NDArray[np.float64]


def replica_share(
    replicas: npt.NDArray[np.int64], policy: str, node_of_gpu: npt.NDArray[np.int64], homes: Array | None
) -> Array:
    """Return the expected share of each expert's tokens on each GPU, (L, E, G).

    Parameters
    ----------
    replicas : (L, E, G) int64
        Replicas of e on g.
    policy : {"fair", "same_gpu", "same_node"}
    node_of_gpu : (G,) int64
    homes : (L, E, G) float64 or None
        Share of e's tokens whose home is g; None for equal shares.
    """
    fair: Array = replicas / replicas.sum(axis=2, keepdims=True)
    if policy == "fair":
        return fair
    home = np.full(replicas.shape, 1 / replicas.shape[2]) if homes is None else homes
    here = replicas > 0
    share: Array = np.where(here, home, 0.0)
    rest = np.where(here, 0.0, home)  # tokens whose own GPU has no replica
    if policy == "same_node":
        starts = np.flatnonzero(np.r_[True, np.diff(node_of_gpu) != 0])
        on_node = np.add.reduceat(replicas, starts, axis=2)
        of_node = np.add.reduceat(rest, starts, axis=2)
        per_replica = np.divide(of_node, on_node, out=np.zeros(of_node.shape), where=on_node > 0)
        share += replicas * per_replica[:, :, node_of_gpu]
        far = np.where(on_node > 0, 0.0, of_node).sum(axis=2)
    else:
        far = rest.sum(axis=2)
    share += fair * far[:, :, None]
    return share
