"""What the homes of sequences do to loads, where replicas are chosen by home."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from placement.loads.policies import FAIR, SAME_NODE

__all__ = ["add_group_variance", "add_home_shares", "add_home_variance", "add_sequence_products"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


@numba.njit(nogil=True, cache=True)
def add_group_variance(share: Floats, fair: Floats, deviations: Floats, variance: Floats) -> None:
    """Add the variance of each GPU's relative load between groups of tokens, in one layer.

    An expert is on few GPUs, so the sum over what is there takes far less than a product of matrices.

    Parameters
    ----------
    share : (E, G) float64
        Of an expert's tokens.
    fair : (G,) float64
    deviations : (E, W) float64
        Of the experts' loads in each group.
    variance : (G,) float64
    """
    E, G = share.shape
    load = np.zeros((G, deviations.shape[1]))
    for e in range(E):
        for g in range(G):
            if share[e, g] != 0.0:
                part = share[e, g] / fair[g]
                for w in range(load.shape[1]):
                    load[g, w] += part * deviations[e, w]
    for g in range(G):
        total = 0.0
        for w in range(load.shape[1]):
            total += load[g, w] * load[g, w]
        variance[g] += total


@numba.njit(nogil=True, cache=True)
def add_home_shares(
    gpus: Ints, count: int, sign: float, policy: int, node_of_gpu: Ints, fair: Floats, change: Floats
) -> None:
    """Add ``(share with home h - mean over homes) / fair[g]`` of an expert to ``change[g, h]``, (G, G).

    Parameters
    ----------
    gpus : (>= count,) integers
        GPUs of the expert's replicas; a GPU may occur twice.
    """
    G = len(fair)
    if count < 2 or policy == FAIR:
        return
    for h in range(G):
        own = 0
        near = 0
        for c in range(count):
            own += gpus[c] == h
            near += policy == SAME_NODE and node_of_gpu[gpus[c]] == node_of_gpu[h]
        for c in range(count):
            g = gpus[c]
            if own:
                part = 1.0 / own if g == h else 0.0
            elif near:
                part = 1.0 / near if node_of_gpu[g] == node_of_gpu[h] else 0.0
            else:
                part = 1.0 / count
            if part == 0.0:
                continue
            part *= sign / fair[g]
            change[g, h] += part
            for other in range(G):
                change[g, other] -= part / G


@numba.njit(nogil=True, cache=True)
def add_home_variance(
    replicas: Ints, policy: int, node_of_gpu: Ints, fair: Floats, moments: Floats, variance: Floats
) -> None:
    """Add the variance of each GPU's relative load by the homes of sequences, in one layer.

    Parameters
    ----------
    replicas : (E, G) int64
    moments : (E, E) float64
        Products of the experts' loads, summed over sequences, as shares of the layer's squared.
    variance : (G,) float64
    """
    E, G = replicas.shape
    number = np.full(E, -1, np.int64)  # of those with several replicas
    several = 0
    for e in range(E):
        if replicas[e].sum() > 1:
            number[e] = several
            several += 1
    change = np.zeros((several, G, G))
    gpus = np.empty(max(replicas.sum(), 1), np.int64)
    for e in range(E):
        if number[e] < 0:
            continue
        count = 0
        for g in range(G):
            for _ in range(replicas[e, g]):
                gpus[count] = g
                count += 1
        add_home_shares(gpus, count, 1.0, policy, node_of_gpu, fair, change[number[e]])
    here = np.empty(E, np.int64)
    for g in range(G):
        count = 0
        for e in range(E):
            if number[e] >= 0 and replicas[e, g] > 0:
                here[count] = e
                count += 1
        for a in range(count):
            for b in range(count):
                x, y = change[number[here[a]], g], change[number[here[b]], g]
                product = 0.0
                for h in range(G):
                    product += x[h] * y[h]
                variance[g] += moments[here[a], here[b]] * product / G


@numba.njit(nogil=True, cache=True)
def add_sequence_products(ids: Ints, start: Ints, products: Floats) -> None:
    """Add ``y[s] y[s]'`` for the loads y (E,) of each sequence s in one layer.

    Parameters
    ----------
    ids : (n, K) integers
        Tokens in the order of their sequences; -1 missing.
    start : (sequences + 1,) int64
        Where each sequence starts.
    products : (E, E) float64
    """
    load = np.zeros(len(products))
    used = np.empty(len(products), np.int64)
    for s in range(len(start) - 1):
        count = 0
        for t in range(start[s], start[s + 1]):
            for k in range(ids.shape[1]):
                e = ids[t, k]
                if e < 0:
                    continue
                if load[e] == 0.0:
                    used[count] = e
                    count += 1
                load[e] += 1.0
        for a in range(count):
            for b in range(count):
                products[used[a], used[b]] += load[used[a]] * load[used[b]]
        for a in range(count):
            load[used[a]] = 0.0
