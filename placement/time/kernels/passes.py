"""What one forward pass does to every rank: tokens of each slot, tokens received, and copies sent and received."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from placement.replay.kernels.choosing import choose_replica
from placement.replay.kernels.replay import DEDUP_GPU, DEDUP_NODE, DEDUP_NONE, Replicas, Tokens

__all__ = ["RELAYED", "PassSums", "count_context", "count_dispatch"]

RELAYED = 9  # beside DEDUP_NONE and so on: a copy per expert, first to the rank of the target's index in its own node
Counts = npt.NDArray[np.int64]
IntArray = npt.NDArray[np.integer[Any]]


class PassSums(NamedTuple):
    """What is added up, all int64.

    Attributes
    ----------
    counts : (L, S)
        Tokens of each slot.
    rows : (L, G)
        Distinct tokens that a rank receives, its own among them.
    inside : (L, G, 2)
        Copies that a rank sends and receives within its node.
    across : (L, G, 2)
        Copies that it sends to and receives from other nodes.
    """

    counts: Counts
    rows: Counts
    inside: Counts
    across: Counts


@numba.njit(nogil=True, cache=True)
def use_slot(replicas: Replicas, slots: npt.NDArray[np.int32], layer: int, expert: int, gpu: int) -> int:
    """Return the first slot of an expert on a GPU."""
    for c in range(replicas.counts[layer, expert]):
        if replicas.gpus[layer, expert, c] == gpu:
            return int(slots[layer, expert, c])
    return -1


@numba.njit(nogil=True, cache=True)
def send(sums: PassSums, nodes: IntArray, layer: int, source: int, target: int) -> None:
    """Count one copy from rank to rank."""
    if source == target:
        return
    tier = sums.inside if nodes[source] == nodes[target] else sums.across
    tier[layer, source, 0] += 1
    tier[layer, target, 1] += 1


@numba.njit(nogil=True, cache=True)
def count_dispatch(
    tokens: Tokens,
    replicas: Replicas,
    slots: npt.NDArray[np.int32],
    dedup: int,
    entry_gpu: Counts,
    sums: PassSums,
) -> None:
    """Count a pass of tokens that leave their home rank and come back in every layer; as `replay_dispatch` does.

    Parameters
    ----------
    tokens, replicas
        As in `placement.replay`.
    slots : (L, E, M) int32
        Slots of the replicas.
    dedup : int
        DEDUP_NONE, DEDUP_GPU, DEDUP_NODE or RELAYED.
    entry_gpu : (G, N) int64
        Where copies of a GPU arrive in a node.
    sums : PassSums
    """
    ids, rows, homes = tokens
    nodes = replicas.node_of_gpu
    here = np.empty(ids.shape[2], np.int64)
    anchor = np.empty(1, np.int64)
    for t in range(ids.shape[0]):
        home = int(homes[t])
        anchor[0] = home
        for layer in range(ids.shape[1]):
            count = 0
            for k in range(ids.shape[2]):
                e = ids[t, layer, k]
                if e < 0:
                    continue
                gpu = int(replicas.gpus[layer, e, 0])
                if replicas.counts[layer, e] > 1:
                    gpu = choose_replica(
                        replicas.gpus[layer, e],
                        replicas.counts[layer, e],
                        anchor,
                        1,
                        replicas.policy,
                        nodes,
                        rows[t],
                        layer,
                        e,
                    )
                sums.counts[layer, use_slot(replicas, slots, layer, e, gpu)] += 1
                fresh_gpu, fresh_node = True, True
                for a in range(count):
                    fresh_gpu &= here[a] != gpu
                    fresh_node &= nodes[here[a]] != nodes[gpu]
                sums.rows[layer, gpu] += fresh_gpu
                if dedup == DEDUP_NONE or (dedup == DEDUP_GPU and fresh_gpu):
                    send(sums, nodes, layer, home, gpu)
                elif dedup == RELAYED:
                    relay = int(entry_gpu[gpu, nodes[home]])
                    send(sums, nodes, layer, home, relay)
                    send(sums, nodes, layer, relay, gpu)
                elif dedup == DEDUP_NODE:
                    entry = int(entry_gpu[home, nodes[gpu]])
                    if fresh_node:
                        send(sums, nodes, layer, home, entry)
                    if fresh_gpu:
                        send(sums, nodes, layer, entry, gpu)
                here[count] = gpu
                count += 1


@numba.njit(nogil=True, cache=True)
def count_context(tokens: Tokens, replicas: Replicas, slots: npt.NDArray[np.int32], sums: PassSums) -> None:
    """Count a pass of tokens that go from their experts of a layer straight to those of the next.

    A copy goes from every GPU that has one of the token's experts to every GPU that has one in the next layer. It is
    counted in the layer that it leaves.
    """
    ids, rows = tokens.ids, tokens.rows
    nodes = replicas.node_of_gpu
    here, before = np.empty(ids.shape[2], np.int64), np.empty(ids.shape[2], np.int64)
    for t in range(ids.shape[0]):
        num_before = 0
        for layer in range(ids.shape[1]):
            count = 0
            for k in range(ids.shape[2]):
                e = ids[t, layer, k]
                if e < 0:
                    continue
                gpu = int(replicas.gpus[layer, e, 0])
                if replicas.counts[layer, e] > 1:
                    gpu = choose_replica(
                        replicas.gpus[layer, e],
                        replicas.counts[layer, e],
                        before,
                        num_before,
                        replicas.policy,
                        nodes,
                        rows[t],
                        layer,
                        e,
                    )
                sums.counts[layer, use_slot(replicas, slots, layer, e, gpu)] += 1
                fresh = True
                for a in range(count):
                    fresh &= here[a] != gpu
                if fresh:
                    sums.rows[layer, gpu] += 1
                    for b in range(num_before):
                        send(sums, nodes, layer - 1, int(before[b]), gpu)
                    here[count] = gpu
                    count += 1
            for a in range(count):
                before[a] = here[a]
            num_before = count
