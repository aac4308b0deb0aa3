"""Renaming the GPUs of all later layers at once: the large move that single swaps can't make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem, Topology

__all__ = ["Relabelling", "relabel_all", "tier_costs"]

Array = npt.NDArray[np.float64]
# Above it, the nested problems of all pairs of nodes take too long; 16 small assignment problems per boundary. Chosen
# by trial.
MAX_EXACT_NODES = 4


@dataclass(frozen=True, kw_only=True)
class Relabelling:
    """The best way to name the blocks of a layer, given the layer before.

    On a topology with two tiers (``near`` within a node, ``far`` between nodes), equal GPUs and no constraint that
    tells GPUs apart, the best names are nested assignment problems: blocks to GPUs inside each pair of nodes, then
    nodes to nodes. With many nodes, nodes first: what each pair would gain inside is then only bounded from above,
    and the names are good, not always the best.

    Attributes
    ----------
    nodes, per_node : int
    near, far : float
        Hop costs.
    """

    nodes: int
    per_node: int
    near: float
    far: float

    @classmethod
    def of(cls, problem: Problem) -> Relabelling | None:
        """Return the relabelling of a problem, or None where GPUs or hop costs are not interchangeable."""
        topology = problem.topology
        sizes = set(topology.gpus_per_node)
        if not problem.is_free or len(sizes) > 1 or len(set(topology.speed.tolist())) > 1 or topology.num_gpus == 1:
            return None
        near, far = tier_costs(topology)
        return (
            None
            if near is None or far is None
            else cls(nodes=topology.num_nodes, per_node=topology.gpus_per_node[0], near=near, far=far)
        )

    def best(self, traffic: Array) -> tuple[float, npt.NDArray[np.int64]]:
        """Name the blocks of the next layer.

        Parameters
        ----------
        traffic : (G, G) float64
            Pair weight from GPU g to block h of the next layer.

        Returns
        -------
        cost : float
            Hop cost under the best names.
        name : (G,) int64
            GPU of each block.
        """
        from scipy.optimize import linear_sum_assignment

        N, M = self.nodes, self.per_node
        blocks = traffic.reshape(N, M, N, M).transpose(0, 2, 1, 3)
        gain = (self.far - self.near) * blocks.sum(axis=(2, 3))
        inner: dict[tuple[int, int], npt.NDArray[np.int64]] = {}

        def match(n: int, m: int) -> float:
            row, column = linear_sum_assignment(blocks[n, m], maximize=True)
            inner[n, m] = row[np.argsort(column)]
            return self.near * float(blocks[n, m][row, column].sum())

        if N <= MAX_EXACT_NODES:
            gain += np.array([[match(n, m) for m in range(N)] for n in range(N)])
            row, column = linear_sum_assignment(gain, maximize=True)
            saved = float(gain[row, column].sum())
        else:
            by_row, by_column = blocks.max(axis=3).sum(axis=2), blocks.max(axis=2).sum(axis=2)
            row, column = linear_sum_assignment(gain + self.near * np.minimum(by_row, by_column), maximize=True)
            saved = float(gain[row, column].sum()) + sum(match(n, m) for n, m in zip(row, column, strict=True))
            own = float(np.trace(gain)) + self.near * float(np.trace(traffic))
            if own >= saved:
                return self.far * float(traffic.sum()) - own, np.arange(N * M)
        name = np.empty(N * M, np.int64)
        for n, m in zip(row, column, strict=True):
            name[m * M : (m + 1) * M] = n * M + inner[n, m]
        return self.far * float(traffic.sum()) - saved, name


def tier_costs(topology: Topology) -> tuple[float | None, float | None]:
    """Return the hop costs within and between nodes, None unless each tier has a single cost and far >= near."""
    hop, node = topology.hop_cost, topology.node_of_gpu
    same_node = node[:, None] == node[None, :]
    inside = hop[same_node & ~np.eye(len(node), dtype=bool)]
    outside = hop[~same_node]
    if (inside.size and np.ptp(inside) > 0) or (outside.size and np.ptp(outside) > 0):
        return None, None
    far = float(outside[0]) if outside.size else float(inside[0])
    near = float(inside[0]) if inside.size else far
    return (near, far) if far >= near else (None, None)


def relabel_all(gpu: npt.NDArray[np.int64], traffic_of: Any, relabelling: Relabelling) -> npt.NDArray[np.int64]:
    """Rename layer by layer; `traffic_of(layer, gpu_l, gpu_next)` gives the (G, G) pair weights of a boundary."""
    renamed = gpu.copy()
    for layer in range(len(gpu) - 1):
        _, name = relabelling.best(traffic_of(layer, renamed[layer], gpu[layer + 1]))
        renamed[layer + 1] = name[gpu[layer + 1]]
    return renamed
