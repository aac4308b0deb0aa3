"""Links that moves travel over: every GPU's ports inside its node and to other nodes, shared fairly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement.moves.kernels import fair_seconds
from placement.time.machine import Machine
from placement.topology.topology import Topology

__all__ = ["CHECKPOINT_GB_S", "Links"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
# Assumed: an NVMe drive of 7 GB/s that the eight GPUs of a host share.
CHECKPOINT_GB_S = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Links:
    """How fast GPUs send to each other.

    Attributes
    ----------
    node_of_gpu : (G,) int64
    inside_gb_s, across_gb_s : (G,) float64
        Of a GPU's port to its node and to other nodes, each direction.
    pair_gb_s : (G, G) float64
        That a pair of GPUs reaches alone.
    checkpoint_gb_s : float
        At which a GPU loads an expert that no GPU holds.
    """

    node_of_gpu: Ints
    inside_gb_s: Floats
    across_gb_s: Floats
    pair_gb_s: Floats
    checkpoint_gb_s: float = CHECKPOINT_GB_S

    @classmethod
    def of(cls, topology: Topology, *, checkpoint_gb_s: float = CHECKPOINT_GB_S) -> Links | None:
        """Return the links of a topology; None where only its costs are known."""
        if topology.bandwidth_gb_s is None:
            return None
        node, pair = topology.node_of_gpu, topology.bandwidth_gb_s
        same = node[:, None] == node[None, :]
        other = ~np.eye(len(node), dtype=bool)
        inside, across = (np.where(where, np.maximum(pair, pair.T), 0).max(axis=1) for where in (same & other, ~same))
        return cls(
            node_of_gpu=node,
            inside_gb_s=inside,
            across_gb_s=across,
            pair_gb_s=pair,
            checkpoint_gb_s=checkpoint_gb_s,
        )

    @classmethod
    def of_machine(cls, machine: Machine, *, checkpoint_gb_s: float = CHECKPOINT_GB_S) -> Links:
        """Return the links that the data sheets of a machine's GPUs give."""
        return cls(
            node_of_gpu=machine.nodes,
            inside_gb_s=np.array([gpu.nvlink_gb_s for gpu in machine.gpus]),
            across_gb_s=machine.network_gb_s,
            pair_gb_s=machine.pair_gb_s,
            checkpoint_gb_s=checkpoint_gb_s,
        )

    def seconds(self, source: Ints, gpu: Ints, size: float) -> float:
        """Return how long transfers take that begin together.

        Every transfer uses the sender's port and the receiver's, of their node or of the network. Ports are shared
        max-min fairly: rates grow alike until a port or a pair is at its bandwidth, and again whenever a pair is done.

        Parameters
        ----------
        source, gpu : (M,) int64
            From and to; a source of -1 is the checkpoint, which each GPU reads at `checkpoint_gb_s` meanwhile.
        size : float
            Bytes of each.

        References
        ----------
        D. Bertsekas and R. Gallager, Data Networks (1992), section 6.5.2: max-min fair rates by filling.
        """
        read = np.bincount(gpu[source < 0], minlength=len(self.node_of_gpu)).max(initial=0)
        loading = float(read) * size / 1e9 / self.checkpoint_gb_s
        sent = source >= 0
        pairs, count = np.unique(np.stack([source[sent], gpu[sent]], axis=1), axis=0, return_counts=True)
        if not len(pairs):
            return loading
        here, there = pairs.T
        near = self.node_of_gpu[here] == self.node_of_gpu[there]
        gpus = len(self.node_of_gpu)
        ports = np.concatenate([self.inside_gb_s, self.inside_gb_s, self.across_gb_s, self.across_gb_s])
        first = np.where(near, 0, 2 * gpus)
        flows = np.stack([first + here, first + gpus + there], axis=1).astype(np.int64)
        amounts = np.asarray(count * (size / 1e9), np.float64)
        return max(loading, float(fair_seconds(flows, amounts, ports, self.pair_gb_s[here, there])))
