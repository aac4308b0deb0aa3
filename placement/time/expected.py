"""The forward pass that counts lead one to expect, without a token: who gets how many, and what travels."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from placement.plan.plan import Plan, replicas_on_gpu
from placement.time.passes import PassLoad

__all__ = ["expected_pass"]

Floats = npt.NDArray[np.float64]


def expected_pass(
    plan: Plan, shares: Floats, *, tokens: int, top_k: int, dedup: Literal["none", "node", "gpu"] = "none"
) -> PassLoad:
    """Return what a pass does to every rank in the mean, if only the experts' loads are known.

    Tokens are at home on every rank alike and go to any replica of an expert alike, and which experts of a token go
    together is left to chance: real tokens share messages more often.

    Parameters
    ----------
    plan : Plan
    shares : (L, E) float64
        Share of each layer's assignments by expert; rows sum to 1.
    tokens : int
        Of the pass, all ranks together.
    top_k : int
        Experts of a token.
    dedup : {"none", "node", "gpu"}
        What is sent once: a copy per expert, per node and then per GPU, or per GPU.
    """
    layers, gpus = len(shares), plan.num_gpus
    held = replicas_on_gpu(plan.physical_to_logical_map, plan.num_experts, gpus)
    each = shares / np.maximum(held.sum(axis=2), 1)  # (L, E): of one replica
    table = plan.physical_to_logical_map
    counts = np.where(table >= 0, np.take_along_axis(each, np.maximum(table, 0), axis=1), 0.0) * tokens * top_k
    on_gpu = np.einsum("le,leg->lg", each, held)
    starts = np.cumsum([0, *plan.gpus_per_node[:-1]])
    size = np.repeat(plan.gpus_per_node, plan.gpus_per_node)  # (G,): GPUs of each GPU's node
    rows = tokens * _any(on_gpu, shares, top_k)
    # What reaches a GPU from homes that are spread evenly: the rank itself, others of its node, other nodes.
    if dedup == "node":
        node_of_gpu = np.repeat(np.arange(len(starts)), plan.gpus_per_node)
        arrive = tokens * _any(np.add.reduceat(on_gpu, starts, axis=1), shares, top_k)  # (L, N): of a node
        each_entry = (arrive / plan.gpus_per_node)[:, node_of_gpu]
        across_in = each_entry * (1 - size / gpus)
        others = arrive.sum(axis=1, keepdims=True) - arrive
        across_out = (others / gpus)[:, node_of_gpu]
        inside_in = rows * (1 - 1 / size)
        inside_out = (np.add.reduceat(rows, starts, axis=1)[:, node_of_gpu] - rows) / size
    else:
        copies = rows if dedup == "gpu" else counts.reshape(layers, gpus, -1).sum(axis=2)
        of_node = np.repeat(np.add.reduceat(copies, starts, axis=1), plan.gpus_per_node, axis=1)
        across_in = copies * (1 - size / gpus)
        across_out = (copies.sum(axis=1, keepdims=True) - of_node) / gpus
        inside_in = copies * (size - 1) / gpus
        inside_out = (of_node - copies) / gpus
    return PassLoad(
        counts=_whole(counts).reshape(layers, gpus, -1),
        rows=_whole(rows),
        inside=_whole(np.stack([inside_out, inside_in], axis=2)),
        across=_whole(np.stack([across_out, across_in], axis=2)),
        tokens=tokens,
    )


def _any(part: Floats, shares: Floats, top_k: int) -> Floats:
    """Return the chance that a token chooses anything of a part of a layer, (L, X).

    Experts are drawn one after the other and none twice: as from an urn of so many experts as loads that even would
    have, of which the part is a share.

    Parameters
    ----------
    part : (L, X) float64
        Share of the assignments that the part gets.
    """
    number = np.maximum(1 / (shares**2).sum(axis=1, keepdims=True), top_k)  # of equally loaded experts
    left = number - np.arange(top_k)[:, None, None]  # (K, L, 1), at least 1
    found: Floats = 1 - np.clip(1 - part * number / left, 0, 1).prod(axis=0)
    return found


def _whole(values: Floats) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = np.rint(values).astype(np.int64)
    return found
