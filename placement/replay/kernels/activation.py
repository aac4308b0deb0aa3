"""Which experts of each GPU have tokens in a batch."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from placement.replay.kernels.choosing import choose_replica
from placement.replay.kernels.replay import Replicas, Tokens

__all__ = ["sum_most_active"]


@numba.njit(nogil=True, cache=True)
def sum_most_active(tokens: Tokens, replicas: Replicas, batch: int, most: npt.NDArray[np.float64]) -> None:
    """Add to ``most[l]``, for each batch of consecutive tokens, the most experts with tokens on a GPU.

    Parameters
    ----------
    tokens : Tokens
    replicas : Replicas
    batch : int
        Tokens per batch; the last one may have fewer.
    most : (L,) float64
    """
    ids, rows, homes = tokens
    replica_gpus, replica_counts, policy, node_of_gpu = replicas
    T, L, K = ids.shape
    seen = np.zeros((replica_counts.shape[1], len(node_of_gpu)), np.int64)  # the batch that saw the replica last
    active = np.zeros(len(node_of_gpu), np.int64)
    anchor = np.empty(1, np.int64)
    stamp = 0
    for layer in range(L):
        for first in range(0, T, batch):
            stamp += 1
            active[:] = 0
            for t in range(first, min(first + batch, T)):
                anchor[0] = homes[t]
                for k in range(K):
                    e = ids[t, layer, k]
                    if e < 0:
                        continue
                    g = choose_replica(
                        replica_gpus[layer, e],
                        replica_counts[layer, e],
                        anchor,
                        1,
                        policy,
                        node_of_gpu,
                        rows[t],
                        layer,
                        e,
                    )
                    if seen[e, g] != stamp:
                        seen[e, g] = stamp
                        active[g] += 1
            most[layer] += active.max()
