"""The expert-parallel load balancer's two greedy steps, compiled: replicate the hottest, pack the heaviest first."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from solvers.methods.eplb.kernels.heap import TOP, heapify, sift_down

__all__ = ["rebalance_layer"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@numba.njit(nogil=True, cache=True)
def _pack(weight: Floats, packs: int, target: Ints) -> None:
    """Pack items into `packs` packs of equal size, heaviest first, each into the lightest pack with room.

    ``target[i]`` becomes ``pack * size + rank in the pack``; ties go to the first item and the first pack.
    """
    items = len(weight)
    size = items // packs
    if size == 1:
        for i in range(items):
            target[i] = i
        return
    order = np.argsort(-weight, kind="mergesort")
    filled = np.zeros(packs, np.int64)
    total = np.zeros(packs)
    open_packs = np.arange(packs)  # a heap; packs that are full leave it
    count = packs
    for i in order:
        best = open_packs[0]
        target[i] = best * size + filled[best]
        filled[best] += 1
        total[best] += weight[i]
        if filled[best] == size:
            count -= 1
            open_packs[0] = open_packs[count]
        sift_down(open_packs, total, max(count, 1), TOP)


@numba.njit(nogil=True, cache=True)
def rebalance_layer(weight: Floats, slots: int, groups: int, nodes: int, gpus: int, out: Ints) -> None:
    """Place one layer: groups on nodes, replicas inside nodes, replicas on GPUs.

    Parameters
    ----------
    weight : (E,) float64
    slots, groups, nodes, gpus : int
        ``E % groups == groups % nodes == slots % gpus == gpus % nodes == 0``.
    out : (S,) int64
        Physical-to-logical map.
    """
    E = len(weight)
    group_size = E // groups
    group_weight = np.zeros(groups)
    for e in range(E):
        group_weight[e // group_size] += weight[e]
    group_target = np.empty(groups, np.int64)
    _pack(group_weight, nodes, group_target)
    by_node = np.empty(E, np.int64)
    for e in range(E):
        by_node[group_target[e // group_size] * group_size + e % group_size] = e
    per_node, slots_per_node = E // nodes, slots // nodes
    held = np.empty(slots_per_node, np.int64)
    replica_weight = np.empty(slots_per_node)
    target = np.empty(slots_per_node, np.int64)
    replicas = np.empty(per_node, np.int64)
    share = np.empty(per_node)
    hottest_first = np.empty(per_node, np.int64)  # a heap
    key = np.empty(per_node)
    for node in range(nodes):
        for i in range(per_node):
            held[i] = i
            replicas[i] = 1
            share[i] = weight[by_node[node * per_node + i]]
            hottest_first[i], key[i] = i, -share[i]
        heapify(hottest_first, key, per_node)
        for i in range(per_node, slots_per_node):
            hottest = hottest_first[0]
            held[i] = hottest
            replicas[hottest] += 1
            share[hottest] = weight[by_node[node * per_node + hottest]] / replicas[hottest]
            key[hottest] = -share[hottest]
            sift_down(hottest_first, key, per_node, TOP)
        for i in range(slots_per_node):
            replica_weight[i] = share[held[i]]
        _pack(replica_weight, gpus // nodes, target)
        for i in range(slots_per_node):
            out[node * slots_per_node + target[i]] = by_node[node * per_node + held[i]]
