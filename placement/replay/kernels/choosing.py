"""Which home a token has, and which replica of an expert it uses."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from placement.loads.policies import FAIR, SAME_NODE
from traces.support.mixing import mix

__all__ = ["choose_from_home", "choose_replica", "fair_hashes", "fair_pick", "home_ranks"]

IntArray = npt.NDArray[np.integer[Any]]


@numba.njit(nogil=True, cache=True)
def home_ranks(keys: IntArray, num_gpus: int) -> npt.NDArray[np.int32]:
    """Hash keys (rows or sequence ids) to home ranks, (T,) int32."""
    homes = np.empty(len(keys), np.int32)
    for t in range(len(keys)):
        homes[t] = mix(np.uint64(keys[t]) + np.uint64(0x9E3779B97F4A7C15)) % np.uint64(num_gpus)
    return homes


@numba.njit(nogil=True, cache=True, inline="always")
def fair_hash(row: int, layer: int, expert: int) -> np.uint64:
    """Return what a token draws its replica of an expert by: a hash, so that every replay agrees."""
    key = np.uint64(row) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(layer * 65536 + expert)
    drawn: np.uint64 = mix(key + np.uint64(0xD1B54A32D192ED03))
    return drawn


@numba.njit(nogil=True, cache=True, inline="always")
def fair_pick(row: int, layer: int, expert: int, count: int) -> int:
    """Return which of `count` equal replicas a token uses."""
    drawn = fair_hash(row, layer, expert)
    if count == 2:  # most often; a division takes longer than the hash
        return int(np.int64(drawn & np.uint64(1)))
    return int(np.int64(drawn % np.uint64(count)))  # int alone stays unsigned


@numba.njit(nogil=True, cache=True)
def fair_hashes(ids: IntArray, rows: IntArray, layer: int) -> npt.NDArray[np.uint64]:
    """Return `fair_hash` of each token and expert of a layer, (T, K); 0 where there is none."""
    drawn = np.zeros(ids.shape, np.uint64)
    for t in range(ids.shape[0]):
        for k in range(ids.shape[1]):
            if ids[t, k] >= 0:
                drawn[t, k] = fair_hash(rows[t], layer, ids[t, k])
    return drawn


@numba.njit(nogil=True, cache=True)
def choose_replica(
    gpus: IntArray,
    count: int,
    anchors: IntArray,
    num_anchors: int,
    policy: int,
    node_of_gpu: IntArray,
    row: int,
    layer: int,
    expert: int,
) -> int:
    """Return the GPU of the replica that a token uses.

    Parameters
    ----------
    gpus : (>= count,) integers
        GPUs of the expert's replicas.
    anchors : (>= num_anchors,) integers
        Where the token is: its home rank, or the GPUs of its experts in the layer before, first expert first.
    policy : int
        FAIR, SAME_GPU or SAME_NODE.
    """
    if count == 1:
        return int(gpus[0])
    if policy != FAIR:
        for a in range(num_anchors):
            for c in range(count):
                if gpus[c] == anchors[a]:
                    return int(gpus[c])
    if policy == SAME_NODE:
        for a in range(num_anchors):
            node = node_of_gpu[anchors[a]]
            near = 0
            for c in range(count):
                if node_of_gpu[gpus[c]] == node:
                    near += 1
            if near:
                wanted = fair_pick(row, layer, expert, near) if near > 1 else 0
                for c in range(count):
                    if node_of_gpu[gpus[c]] == node:
                        if wanted == 0:
                            return int(gpus[c])
                        wanted -= 1
    return int(gpus[fair_pick(row, layer, expert, count)])


@numba.njit(nogil=True, cache=True, inline="always")
def choose_from_home(
    gpus: IntArray, count: int, home: int, policy: int, node_of_gpu: IntArray, row: int, layer: int, expert: int
) -> int:
    """Return what `choose_replica` does for a token that is at its home rank only, by one look at each replica.

    Parameters
    ----------
    gpus : (E, >= count) integers
        Of each expert's replicas, ascending, so that those of a node are next to each other.
    count : int
        Replicas of the expert, two or more.
    home : int
    policy : int
    """
    if policy != FAIR:
        node, near, first = node_of_gpu[home], 0, 0
        for c in range(count):
            gpu = int(gpus[expert, c])
            if gpu == home:
                return home
            if node_of_gpu[gpu] == node:
                if near == 0:
                    first = c
                near += 1
        if policy == SAME_NODE and near > 0:
            return int(gpus[expert, first + (fair_pick(row, layer, expert, near) if near > 1 else 0)])
    return int(gpus[expert, fair_pick(row, layer, expert, count)])
