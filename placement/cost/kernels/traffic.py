"""Traffic in expectation: of whole chains of layers, and of assignments from their homes."""
# numba's decorators are untyped.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from placement.loads.policies import FAIR, SAME_NODE

__all__ = ["assignment_traffic", "pair_traffic"]


@numba.njit(nogil=True, cache=True)
def pair_traffic(
    affinity: npt.NDArray[np.integer[Any]],
    share: npt.NDArray[np.float64],
    hop: npt.NDArray[np.float64],
    by_layer: npt.NDArray[np.float64],
) -> None:
    """Write ``sum_ij A[l,i,j] sum_gh Q[l,i,g] Q[l+1,j,h] d[g,h]`` to `by_layer`, (L-1,).

    Shares are sparse: the work is in proportion to ``E * E`` times the replicas of an expert, not to ``G``.
    """
    layers, E, G = share.shape
    reach = np.empty((G, E))
    for layer in range(layers - 1):
        reach[:] = 0.0
        for j in range(E):
            for h in range(G):
                part = share[layer + 1, j, h]
                if part > 0.0:
                    for g in range(G):
                        reach[g, j] += part * hop[g, h]
        total = 0.0
        for i in range(E):
            for g in range(G):
                part = share[layer, i, g]
                if part > 0.0:
                    row = 0.0
                    for j in range(E):
                        row += affinity[layer, i, j] * reach[g, j]
                    total += part * row
        by_layer[layer] = total


@numba.njit(nogil=True, cache=True)
def assignment_traffic(
    replicas: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float64],
    homes: npt.NDArray[np.float64],
    policy: int,
    node_of_gpu: npt.NDArray[np.int64],
    hop: npt.NDArray[np.float64],
    by_layer: npt.NDArray[np.float64],
) -> None:
    """Add the hop cost of a message per expert and token, in expectation, to `by_layer`, (L,).

    The work is in proportion to ``E * G`` times the replicas of an expert.

    Parameters
    ----------
    replicas : (L, E, G) int64
    weight : (L, E) float64
        Share of all assignments.
    homes : (L, E, G) float64, or (0, 0, 0)
        Share of an expert's tokens by home; equal shares if it is empty.
    policy : int
        FAIR, SAME_GPU or SAME_NODE.
    node_of_gpu : (G,) int64
    hop : (G, G) float64
    by_layer : (L,) float64
    """
    layers, E, G = replicas.shape
    holders = np.empty(G, np.int64)
    for layer in range(layers):
        total = 0.0
        for e in range(E):
            count, copies = 0, 0
            for g in range(G):
                if replicas[layer, e, g]:
                    holders[count] = g
                    count += 1
                    copies += replicas[layer, e, g]
            for home in range(G):
                part = weight[layer, e] * (homes[layer, e, home] if homes.size else 1.0 / G)
                if part == 0.0 or (policy != FAIR and replicas[layer, e, home]):  # its own GPU: no hop
                    continue
                near, there, far = 0, 0.0, 0.0
                for k in range(count):
                    cost = replicas[layer, e, holders[k]] * hop[home, holders[k]]
                    far += cost
                    if node_of_gpu[holders[k]] == node_of_gpu[home]:
                        near += replicas[layer, e, holders[k]]
                        there += cost
                total += part * (there / near if policy == SAME_NODE and near else far / copies)
        by_layer[layer] += total
