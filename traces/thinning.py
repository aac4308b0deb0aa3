"""Tokens of whole sequences spread over a stream, at most so many: what is kept of a trace that is read once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from traces.batch import COLUMNS, Batch

__all__ = ["BLOCK", "WholeSequences", "sequence_of"]

Ints = npt.NDArray[np.int64]
BLOCK = 64  # tokens that stand in for a sequence where a trace has no seq_id, as where it is split


def sequence_of(batch: Batch) -> Ints:
    """Return the sequence of each token, or its block of consecutive tokens where there are no sequences, (T,)."""
    return np.asarray(batch.rows // BLOCK if batch.seq_id is None else batch.seq_id, np.int64)


class WholeSequences:
    """Keeps every token at first; when there are too many, those of every second sequence go, again and again.

    Parameters
    ----------
    most : int
        Tokens to keep; more only of a single sequence.
    columns : frozenset of str
        Optional columns to keep.
    """

    def __init__(self, most: int, columns: frozenset[str]) -> None:
        self.most, self.columns, self.stride = most, columns, 1
        self._kept: list[tuple[Batch, Ints, Ints]] = []  # tokens, sequence of each, its number
        self._numbers: dict[int, int] = {}
        self._total = 0

    @property
    def full(self) -> bool:
        """Whether one sequence alone is longer than all that is wanted."""
        return self._total > self.most

    def add(self, batch: Batch) -> None:
        """Take in the next tokens."""
        unit = sequence_of(batch)
        found, inverse = np.unique(unit, return_inverse=True)
        number = np.array([self._numbers.setdefault(int(name), len(self._numbers)) for name in found], np.int64)
        lean = Batch(topk_ids=batch.topk_ids, rows=batch.rows, **_columns(batch, self.columns))
        self._kept.append(_thin((lean, unit, number[inverse]), self.stride))
        self._total += len(self._kept[-1][0])
        while self._total > self.most and len(self._numbers) > self.stride:
            self.stride *= 2
            self._kept = [_thin(part, self.stride) for part in self._kept]
            self._total = sum(len(part[0]) for part in self._kept)

    def tokens(self, layers: int, top_k: int) -> tuple[Batch, Ints]:
        """Return the tokens in the order of the stream, and the sequence of each, (T,)."""
        if not self._kept:
            return Batch(topk_ids=np.zeros((0, layers, top_k), np.int32), rows=np.zeros(0, np.int64)), np.zeros(0, int)
        batches = [part[0] for part in self._kept]
        there: dict[str, Any] = {
            name: np.concatenate([getattr(batch, name) for batch in batches])
            for name in COLUMNS
            if name in self.columns
        }
        ids = np.concatenate([batch.topk_ids for batch in batches])
        rows = np.concatenate([np.asarray(batch.rows, np.int64) for batch in batches])
        return Batch(topk_ids=ids, rows=rows, **there), np.concatenate([part[1] for part in self._kept])


def _columns(batch: Batch, names: frozenset[str]) -> dict[str, Any]:
    return {name: getattr(batch, name) for name in names}


def _thin(part: tuple[Batch, Ints, Ints], stride: int) -> tuple[Batch, Ints, Ints]:
    batch, unit, number = part
    if stride == 1:
        return part
    keep = number % stride == 0
    return batch.select(keep), unit[keep], number[keep]
