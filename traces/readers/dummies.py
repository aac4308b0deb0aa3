"""Rows that no token made: dummy batches that keep ranks in step, warm-up runs, buffers that were never written.

They show as rows that repeat the row before, in all layers at once, and as rows of a single id, which no token with
K > 1 can choose. Both are reported for every format; they are dropped on request only, as nothing proves that two
tokens in a row can't be alike. (87 % of the rows were such in a public vLLM log.)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.errors import InputError
from traces.trace import Batch, LoadCounts, Trace

__all__ = ["Repeats", "settle_dummies"]

LOOK_TOKENS = 8192
LEAST_ROWS = 16
LEAST_SHARE = 0.02
LEAST_BITS = 24  # rows with fewer possible values are alike by chance
DROPPED = "Rows that repeat the row before, and rows of a single id, were left out on request."


@dataclass
class Repeats:
    """Finds such rows in the batches of one pass."""

    last: npt.NDArray[Any] | None = None
    rows: int = 0
    repeated: int = 0
    uniform: int = 0

    def mask(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which rows of the next batch (T, L, K) are dummies."""
        if not len(ids):
            return np.zeros(0, np.bool_)
        flat = ids.reshape(len(ids), -1)
        repeated = np.zeros(len(flat), np.bool_)
        repeated[1:] = (flat[1:] == flat[:-1]).all(axis=1)
        if self.last is not None:
            repeated[0] = np.array_equal(self.last, flat[0])
        self.last = flat[-1].copy()
        uniform = np.zeros(len(flat), np.bool_)
        if ids.shape[2] > 1:
            uniform = (flat == flat[:, :1]).all(axis=1)
        self.rows += len(flat)
        self.repeated += int(repeated.sum())
        self.uniform += int(uniform.sum())
        marked: npt.NDArray[np.bool_] = repeated | uniform
        return marked


def settle_dummies(loaded: Trace | LoadCounts, drop: bool) -> Trace | LoadCounts:
    """Drop dummy rows on request, or else look for them at the start of a trace and note them.

    Parameters
    ----------
    loaded : Trace or LoadCounts
    drop : bool

    Returns
    -------
    Trace or LoadCounts
        With a note where there is something to tell.
    """
    if isinstance(loaded, LoadCounts):
        if not drop:
            return loaded
        note = "Dummy rows could not be dropped: the file holds counts, in which tokens can't be told apart."
        return replace(loaded, provenance=loaded.provenance.noting(note))
    if drop:
        return _dropping(loaded)
    found = _look(loaded)
    return replace(loaded, provenance=loaded.provenance.noting(found)) if found else loaded


def _look(trace: Trace) -> str | None:
    if trace.num_layers * trace.top_k * math.log2(max(trace.num_experts, 2)) < LEAST_BITS:
        return None
    found = Repeats()
    try:
        for batch in trace.read(LOOK_TOKENS):
            found.mask(batch.topk_ids)
            if found.rows >= LOOK_TOKENS:
                break
    except InputError:
        return None  # it is raised again, with its place, when the trace is read
    if max(found.repeated, found.uniform) < max(LEAST_ROWS, LEAST_SHARE * found.rows):
        return None
    return (
        f"Of the first {found.rows} rows, {found.repeated / found.rows:.1%} repeat the row before and "
        f"{found.uniform / found.rows:.1%} hold a single id: dummy or warm-up rows, most likely. "
        "drop_dummy_rows (--drop-dummy) leaves them out."
    )


def _dropping(trace: Trace) -> Trace:
    read, hash_source = trace.read, trace.hash_source

    def read_kept(max_tokens: int) -> Iterator[Batch]:
        found = Repeats()
        for batch in read(max_tokens):
            kept = ~found.mask(batch.topk_ids)
            if kept.all():
                yield batch
            elif kept.any():
                yield batch.select(kept)

    return replace(
        trace,
        read=read_kept,
        hash_source=lambda: hashlib.sha256(f"{hash_source()}|{DROPPED}".encode()).hexdigest(),
        num_tokens=None,
        provenance=trace.provenance.noting(DROPPED),
    )
