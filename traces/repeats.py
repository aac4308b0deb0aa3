"""Rows that repeat the row before them, and rows of a single id: counted over a whole pass, in constant memory.

Dummy batches, warm-up runs and buffers that were never written look like this. No token with K > 1 can choose a single
id, and two tokens in a row are hardly ever alike in all layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from traces.trace import Trace

__all__ = ["Repeats"]

HEAD = "Of the first "
LEAST_ROWS = 16
LEAST_SHARE = 0.02
LEAST_BITS = 24  # rows with fewer possible values are alike by chance


@dataclass
class Repeats:
    """Finds such rows in the batches of one pass.

    Attributes
    ----------
    last : (L, K) integers or None
        The last row so far.
    rows, repeated, uniform : int
        Rows so far, and those of each kind.
    """

    last: npt.NDArray[Any] | None = None
    rows: int = 0
    repeated: int = 0
    uniform: int = 0

    def mask(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which rows of the next batch (T, L, K) are dummies.

        A single id is compared in all rows, the others only where that one is alike, which it rarely is.
        """
        if not len(ids):
            return np.zeros(0, np.bool_)
        repeated = np.zeros(len(ids), np.bool_)
        repeated[1:] = ids[1:, 0, 0] == ids[:-1, 0, 0]
        alike = np.flatnonzero(repeated)
        if len(alike):
            repeated[alike] = (ids[alike] == ids[alike - 1]).all(axis=(1, 2))
        if self.last is not None:
            repeated[0] = np.array_equal(self.last, ids[0])
        self.last = ids[-1].copy()
        uniform = np.zeros(len(ids), np.bool_)
        if ids.shape[2] > 1:
            uniform = ids[:, 0, 0] == ids[:, 0, 1]
            single = np.flatnonzero(uniform)
            if len(single):
                uniform[single] = (ids[single] == ids[single, :1, :1]).all(axis=(1, 2))
        self.rows += len(ids)
        self.repeated += int(repeated.sum())
        self.uniform += int(uniform.sum())
        marked: npt.NDArray[np.bool_] = repeated | uniform
        return marked

    def note(self, which: str) -> str | None:
        """Return the sentence on the rows so far, None where they are as few as chance may make."""
        if max(self.repeated, self.uniform) < max(LEAST_ROWS, LEAST_SHARE * self.rows):
            return None
        return (
            f"{which}{self.rows:,} rows, {self.repeated / self.rows:.1%} repeat the row before and "
            f"{self.uniform / self.rows:.1%} hold a single id: dummy or warm-up rows, most likely. "
            "`drop_dummy_rows` leaves them out."
        )

    def head_note(self, trace: Trace) -> str | None:
        """Return the sentence on the first rows of a trace."""
        return self.note(HEAD) if Repeats.tells(trace) else None

    def notes(self, trace: Trace) -> tuple[str, ...]:
        """Return the notes of a trace that was read to its end: its whole takes the place of its first rows."""
        told = trace.provenance.notes
        note = self.note("Of all ") if Repeats.tells(trace) else None
        return told if note is None else (*(one for one in told if not one.startswith(HEAD)), note)

    @staticmethod
    def tells(trace: Trace) -> bool:
        """Whether rows have so many possible values that two in a row are not alike by chance."""
        return trace.num_layers * trace.top_k * math.log2(max(trace.num_experts, 2)) >= LEAST_BITS
