"""Replay of tokens through a placement: which replica each token uses, and the messages that follow."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from placement.replay.kernels.choosing import choose_from_home, choose_replica

__all__ = [
    "Cells",
    "Replicas",
    "Sums",
    "Tokens",
    "replay_context",
    "replay_dispatch",
]

IntArray = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.int64]

DEDUP_NONE, DEDUP_GPU, DEDUP_NODE = 0, 1, 2
# Tokens that go through a layer before the next one: their ids stay in the L2 cache, and a layer's tables and messages
# in the L1 cache.
TILE = 1024


class Tokens(NamedTuple):
    """Tokens to replay.

    Attributes
    ----------
    ids : (T, L, K) integers
        Experts; -1 where missing.
    rows : (T,) int64
        Numbers of the tokens in their trace.
    homes : (T,) int32
        Home rank of each token; empty where tokens have none (context-coherent).
    """

    ids: IntArray
    rows: IntArray
    homes: IntArray


class Replicas(NamedTuple):
    """Where the replicas of each expert are, and which one a token uses.

    Attributes
    ----------
    gpus : (L, E, M) int32
        GPUs of the replicas of each expert.
    counts : (L, E) int64
        How many there are.
    policy : int
        FAIR, SAME_GPU or SAME_NODE.
    node_of_gpu : (G,) int64
    """

    gpus: IntArray
    counts: IntArray
    policy: int
    node_of_gpu: IntArray


class Sums(NamedTuple):
    """What a replay adds up, all int64.

    Attributes
    ----------
    traffic : (L-1, G, G) or (L, G, G)
        Context-coherent: incremented by each pair of an expert on g in layer l and one on h in l+1. Dispatch: by each
        message from g to h; on the diagonal is what stays.
    fanout : (L, 3)
        Incremented by the distinct GPUs, the distinct nodes, and by 1 for each token with an expert in the layer.
    away : (L, 4)
        Dispatch only. Incremented by the assignments off the home GPU, off the home node, and by the distinct GPUs and
        nodes that are remote.
    """

    traffic: Counts
    fanout: Counts
    away: Counts


class Cells(NamedTuple):
    """Runs of consecutive tokens whose loads are counted apart.

    Attributes
    ----------
    of_token : (T,) int32
        The cell of each token.
    load : (C, L, G) int32
        Incremented by each expert assignment.
    """

    of_token: npt.NDArray[np.int32]
    load: npt.NDArray[np.int32]


@numba.njit(nogil=True, cache=True)
def replay_context(tokens: Tokens, replicas: Replicas, sums: Sums, cells: Cells) -> None:
    """Replay tokens that travel from layer to layer (context-coherent); adds to `sums` and `cells`."""
    ids, rows = tokens.ids, tokens.rows
    replica_gpus, replica_counts, policy, node_of_gpu = replicas
    traffic, fanout = sums.traffic, sums.fanout
    T, L, K = ids.shape
    here, before = np.empty((TILE, K), np.int64), np.empty((TILE, K), np.int64)
    num_before = np.zeros(TILE, np.int64)
    seen_gpu, seen_node = np.full(len(node_of_gpu), -1, np.int64), np.full(len(node_of_gpu), -1, np.int64)
    none, number = np.zeros((0, 0), np.int64), 0
    for first in range(0, T, TILE):
        last = min(first + TILE, T)
        num_before[:] = 0
        for layer in range(L):
            gpus_of, counts, load = replica_gpus[layer], replica_counts[layer], cells.load[:, layer]
            messages = traffic[layer - 1] if layer else none
            total_gpus, total_nodes, active = 0, 0, 0
            for t in range(first, last):
                number += 1
                i, cell, count = t - first, cells.of_token[t], 0
                for k in range(K):
                    e = ids[t, layer, k]
                    if e < 0:
                        continue
                    gpu = int(gpus_of[e, 0])
                    if counts[e] > 1:  # a call, and a view of the replicas, only where there is a choice
                        gpu = choose_replica(
                            gpus_of[e], counts[e], before[i], num_before[i], policy, node_of_gpu, rows[t], layer, e
                        )
                    here[i, count] = gpu
                    count += 1
                    load[cell, gpu] += 1
                    node = node_of_gpu[gpu]
                    total_gpus += seen_gpu[gpu] != number
                    total_nodes += seen_node[node] != number
                    seen_gpu[gpu] = seen_node[node] = number
                    for b in range(num_before[i]):
                        messages[before[i, b], gpu] += 1
                active += count > 0
                num_before[i] = count
            fanout[layer, 0] += total_gpus
            fanout[layer, 1] += total_nodes
            fanout[layer, 2] += active
            here, before = before, here


@numba.njit(nogil=True, cache=True)
def replay_dispatch(
    tokens: Tokens, replicas: Replicas, dedup: int, entry_gpu: IntArray, sums: Sums, cells: Cells
) -> None:
    """Replay tokens that leave their home rank and come back in every layer (dispatch); adds to `sums` and `cells`.

    Parameters
    ----------
    tokens : Tokens
    replicas : Replicas
    dedup : int
        DEDUP_NONE, DEDUP_GPU or DEDUP_NODE.
    entry_gpu : (G, N) int64
        Where messages of a GPU arrive in a node.
    sums : Sums
    cells : Cells
    """
    ids, rows, homes = tokens
    replica_gpus, replica_counts, policy, node_of_gpu = replicas
    traffic, fanout, away = sums
    # Number of the token and layer that came last to each GPU and node: whether a place is new to it, in one look.
    seen_gpu, seen_node = np.full(len(node_of_gpu), -1, np.int64), np.full(len(node_of_gpu), -1, np.int64)
    T, L, K = ids.shape
    here = np.empty(K, np.int64)
    number = 0
    for first in range(0, T, TILE):
        last = min(first + TILE, T)
        for layer in range(L):
            gpus_of, counts, messages = replica_gpus[layer], replica_counts[layer], traffic[layer]
            gpus, nodes, active = 0, 0, 0
            off_gpu, off_node, far_gpus, far_nodes = 0, 0, 0, 0
            for t in range(first, last):
                number += 1
                home, count = int(homes[t]), 0
                home_node = node_of_gpu[home]
                for k in range(K):
                    e = ids[t, layer, k]
                    if e < 0:
                        continue
                    gpu = int(gpus_of[e, 0])
                    if counts[e] > 1:
                        gpu = choose_from_home(gpus_of, counts[e], home, policy, node_of_gpu, rows[t], layer, e)
                    here[count] = gpu
                    count += 1
                active += count > 0
                load = cells.load[cells.of_token[t], layer]
                # No jumps from here on: what is new and what is far is as good as random, and a wrong guess of the
                # processor costs more than an addition of 0.
                for k in range(count):
                    gpu = int(here[k])
                    node = node_of_gpu[gpu]
                    load[gpu] += 1
                    fresh_gpu, fresh_node = int(seen_gpu[gpu] != number), int(seen_node[node] != number)
                    seen_gpu[gpu] = seen_node[node] = number
                    away_gpu, away_node = int(gpu != home), int(node != home_node)
                    off_gpu += away_gpu
                    off_node += away_node
                    gpus += fresh_gpu
                    nodes += fresh_node
                    far_gpus += fresh_gpu & away_gpu
                    far_nodes += fresh_node & away_node
                    if dedup == DEDUP_NODE:
                        entry = entry_gpu[home, node]
                        messages[home, entry] += fresh_node
                        messages[entry, gpu] += fresh_gpu & int(gpu != entry)
                    elif dedup == DEDUP_GPU:
                        messages[home, gpu] += fresh_gpu
                    else:
                        messages[home, gpu] += 1
            fanout[layer, 0] += gpus
            fanout[layer, 1] += nodes
            fanout[layer, 2] += active
            away[layer, 0] += off_gpu
            away[layer, 1] += off_node
            away[layer, 2] += far_gpus
            away[layer, 3] += far_nodes
