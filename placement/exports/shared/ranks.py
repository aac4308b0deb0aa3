"""Slots from lists of experts per rank, which may differ in length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from placement.exports.context import Context
from placement.topology.links import MAX_GPUS
from traces import Violations

__all__ = ["padded", "slots_of_ranks"]


def slots_of_ranks(
    gpus: npt.NDArray[np.int64], context: Context, place: str, found: Violations
) -> tuple[npt.NDArray[np.int64], int]:
    """Return the slots (L, S) of experts that have one GPU each, and the number of GPUs.

    Parameters
    ----------
    gpus : (L, E) int64
        GPU of each expert. There are as many as the caller says, or as the largest number tells.
    context : Context
    place : str
    found : Violations
        Takes GPUs that are out of range; the result means nothing then.
    """
    ranks = int(gpus.max()) + 1 if context.num_gpus is None else context.num_gpus
    if gpus.min() < 0 or gpus.max() >= ranks or ranks > MAX_GPUS:
        detail = f"Ranks {gpus.min()}..{gpus.max()} are not in 0..{min(ranks, MAX_GPUS) - 1}."
        found.add("rank_out_of_range", place, detail, "Correct the ranks, or the topology.")
        return np.zeros((1, 1), dtype=np.int64), 1
    rows = [[np.flatnonzero(row == rank).tolist() for rank in range(ranks)] for row in gpus]
    if unused := sorted(set(range(ranks)) - set(gpus.ravel().tolist())):
        detail = f"Rank(s) {unused[:8]} have no expert."
        found.add("rank_without_experts", place, detail, "Give every rank an expert, or name fewer GPUs.")
    return padded(rows), ranks


def padded(rows: Sequence[Sequence[Sequence[int]]]) -> npt.NDArray[np.int64]:
    """Return lists of experts per layer and GPU as slots (L, S): each GPU has as many as the fullest one."""
    most = max((len(experts) for row in rows for experts in row), default=0)
    slots = np.full((len(rows), len(rows[0]), most), -1, dtype=np.int64)
    for layer, row in enumerate(rows):
        for gpu, experts in enumerate(row):
            slots[layer, gpu, : len(experts)] = experts
    return slots.reshape(len(rows), -1)
