"""Which GPU each token goes to under each replica pattern."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from placement.replay.kernels.choosing import choose_replica

__all__ = ["destinations"]

IntArray = npt.NDArray[np.integer[Any]]


@numba.njit(nogil=True, cache=True)
def destinations(
    ids: IntArray,
    rows: IntArray,
    homes: IntArray,
    layer: int,
    gpus: IntArray,
    counts: IntArray,
    policy: int,
    node_of_gpu: IntArray,
) -> npt.NDArray[np.int16]:
    """Return the GPU that serves each token's experts by pattern, (T, K, P) int16; -1 where a token has no expert.

    Parameters
    ----------
    ids : (T, K) integers
        Experts of a layer; -1 where missing.
    rows : (T,) int64
    homes : (T,) int32
    layer : int
    gpus : (P, M) integers
        GPUs of each pattern's replicas, rising.
    counts : (P,) integers
    policy : int
        As in `placement.replay.kernels.replay`.
    node_of_gpu : (G,) int64
    """
    T, K = ids.shape
    P = len(counts)
    result = np.full((T, K, P), -1, np.int16)
    anchor = np.empty(1, np.int64)
    for t in range(T):
        anchor[0] = homes[t]
        for k in range(K):
            if ids[t, k] >= 0:
                for p in range(P):
                    result[t, k, p] = choose_replica(
                        gpus[p], counts[p], anchor, 1, policy, node_of_gpu, rows[t], layer, ids[t, k]
                    )
    return result
