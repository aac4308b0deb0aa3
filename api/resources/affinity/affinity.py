"""What a trace looks like: loads and the affinity of a pair of layers, at a size that a screen can show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from api.resources.traces.stored import StoredTrace
from traces import LoadCounts, Profile, Trace

__all__ = ["AffinityTask", "affinity_of"]

BATCH_TOKENS = 8192
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class AffinityTask:
    """Everything that the count needs; pickles.

    Attributes
    ----------
    trace : StoredTrace
    pair : int or None
        Position of the pair's first layer; None to count loads only.
    size : int
        Most rows and columns of what is returned.
    tokens : int
        Most tokens to count, from the start of the trace. A profile has counted all of its own already.
    """

    trace: StoredTrace
    pair: int | None
    size: int
    tokens: int


def affinity_of(task: AffinityTask) -> dict[str, Any]:
    """Count loads and the pairs of two consecutive layers, with experts next to each other in one cell if need be.

    Memory beyond a batch of tokens: ``8 (size L + size^2)`` bytes, whatever the number of experts.

    Parameters
    ----------
    task : AffinityTask

    Returns
    -------
    dict
        ``tokens`` that were counted (None for counts); ``experts_per_cell`` and ``layers_per_row``, 1 unless there are
        more than `size`; ``load`` (rows, cells), assignments; ``affinity`` (cells, cells) or None, pairs; ``notes``.

    Raises
    ------
    InputError
        If the stored file can't be read any more.
    """
    source = task.trace.open()
    per_cell, per_row = -(-source.num_experts // task.size), -(-len(source.layer_ids) // task.size)
    notes: list[str] = []
    tokens: int | None
    if isinstance(source, Trace):
        tokens, load, affinity, cut = _count(source, task.pair, per_cell, task.tokens)
        if cut:
            notes.append(f"The first {tokens} tokens were counted.")
    else:
        profile = Profile.of(source) if isinstance(source, LoadCounts) else source
        tokens = profile.tokens or None
        load = _in_cells(profile.load, per_cell, axis=1)
        affinity = None
        if task.pair is not None and profile.affinity is not None:
            affinity = _in_cells(_in_cells(profile.affinity[task.pair], per_cell, axis=0), per_cell, axis=1)
    return {
        "tokens": tokens,
        "experts_per_cell": per_cell,
        "layers_per_row": per_row,
        "load": _in_cells(load, per_row, axis=0).tolist(),
        "affinity": None if affinity is None else affinity.tolist(),
        "notes": notes,
    }


def _count(trace: Trace, pair: int | None, per_cell: int, limit: int) -> tuple[int, Ints, Ints | None, bool]:
    """Return the tokens that were counted, load (L, C), affinity (C, C), and whether there were more tokens."""
    cells = -(-trace.num_experts // per_cell)
    load = np.zeros((trace.num_layers, cells), np.int64)
    affinity = None if pair is None else np.zeros(cells * cells, np.int64)
    tokens = 0
    for batch in trace.batches(min(BATCH_TOKENS, limit)):
        if tokens >= limit:
            return tokens, load, _square(affinity, cells), True
        ids = batch.topk_ids[: limit - tokens]
        for layer, row in enumerate(load):
            of_layer = ids[:, layer]
            row += np.bincount(of_layer[of_layer >= 0] // per_cell, minlength=cells)
        if pair is not None and affinity is not None:
            left, right = np.broadcast_arrays(ids[:, pair, :, None], ids[:, pair + 1, None, :])
            there = (left >= 0) & (right >= 0)
            first, second = (side[there].astype(np.int64) // per_cell for side in (left, right))
            affinity += np.bincount(first * cells + second, minlength=cells * cells)
        tokens += len(ids)
        if len(ids) < len(batch):
            return tokens, load, _square(affinity, cells), True
    return tokens, load, _square(affinity, cells), False


def _square(flat: Ints | None, cells: int) -> Ints | None:
    return None if flat is None else flat.reshape(cells, cells)


def _in_cells(values: npt.NDArray[Any], width: int, *, axis: int) -> npt.NDArray[Any]:
    """Add up `width` neighbours each along an axis; the last cell may have fewer."""
    if width == 1:
        return values
    summed: npt.NDArray[Any] = np.add.reduceat(values, np.arange(0, values.shape[axis], width), axis=axis)
    return summed
