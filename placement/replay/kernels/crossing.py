"""What leaves its GPU and its node, and what it costs, of a matrix of messages: one pass, without replicas."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["sum_crossing"]


@numba.njit(nogil=True, cache=True)
def sum_crossing(
    traffic: npt.NDArray[np.int64], node_of_gpu: npt.NDArray[np.int64], hop_cost: npt.NDArray[np.float64]
) -> tuple[int, int, int, float]:
    """Return the messages in all, those between GPUs, those between nodes, and their cost.

    Parameters
    ----------
    traffic : (G, G) int64
    node_of_gpu : (G,) int64
    hop_cost : (G, G) float64
    """
    total = 0
    between_gpus = 0
    between_nodes = 0
    cost = 0.0
    for g in range(len(traffic)):
        row = 0.0
        for h in range(len(traffic)):
            messages = traffic[g, h]
            if messages == 0:
                continue
            total += messages
            if g != h:
                between_gpus += messages
            if node_of_gpu[g] != node_of_gpu[h]:
                between_nodes += messages
            row += messages * hop_cost[g, h]
        cost += row
    return total, between_gpus, between_nodes, cost
