"""A uniform sample of whole tokens that merges exactly: the n tokens whose hashed row number is smallest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from traces.batch import Batch
from traces.support.content import ByContent

__all__ = ["SampleBuilder", "TokenSample", "row_priority"]


def row_priority(rows: npt.NDArray[np.int64], source_key: int) -> npt.NDArray[np.uint64]:
    """Hash row numbers to uniform 64-bit priorities (SplitMix64; Steele, Lea and Flood, OOPSLA 2014, section 4)."""
    x: npt.NDArray[np.uint64] = rows.astype(np.uint64) ^ np.uint64(source_key)
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return x


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TokenSample(ByContent):
    """At most `capacity` tokens of a trace, as a bottom-k sample.

    A token's priority depends on its source and row alone, so the sample of merged profiles is the one that a single
    pass takes, whatever the order of merging.

    Attributes
    ----------
    capacity : int
        Tokens to keep, n.
    topk_ids : (n, L, K) int16
    rows : (n,) int64
        Row in the source.
    seq_id : (n,) int64
        -1 where the trace has none.
    source_rank : (n,) int32
        -1 where unknown.
    priority : (n,) uint64
        Rising.
    """

    capacity: int
    topk_ids: npt.NDArray[np.int16]
    rows: npt.NDArray[np.int64]
    seq_id: npt.NDArray[np.int64]
    source_rank: npt.NDArray[np.int32]
    priority: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        known = [name for name in ("seq_id", "source_rank") if len(self) and (getattr(self, name) >= 0).any()]
        _, layers, top_k = self.topk_ids.shape
        columns = f", with {' and '.join(known)}" if known else ""
        return f"TokenSample of {len(self):,} tokens (at most {self.capacity:,}), {layers} layers, top-{top_k}{columns}"

    @classmethod
    def of_batch(
        cls, batch: Batch, picked: npt.NDArray[np.int64], priority: npt.NDArray[np.uint64], capacity: int
    ) -> TokenSample:
        """Return the tokens `picked` of a batch, in order of priority."""
        picked = picked[np.argsort(priority[picked], kind="stable")][:capacity]
        count = len(picked)
        seq_id, source = batch.seq_id, batch.source_rank
        return cls(
            capacity=capacity,
            topk_ids=batch.topk_ids[picked].astype(np.int16),
            rows=batch.rows[picked],
            seq_id=np.full(count, -1) if seq_id is None else seq_id[picked].astype(np.int64),
            source_rank=np.full(count, -1, np.int32) if source is None else source[picked].astype(np.int32),
            priority=priority[picked],
        )

    @classmethod
    def union(cls, samples: Sequence[TokenSample]) -> TokenSample:
        """Return the sample of the union of what `samples` stand for."""
        capacity = min(sample.capacity for sample in samples)
        priority = np.concatenate([sample.priority for sample in samples])
        rows = np.concatenate([sample.rows for sample in samples])
        ids = np.concatenate([sample.topk_ids for sample in samples])
        seq_id = np.concatenate([sample.seq_id for sample in samples])
        # Equal priorities are all but impossible; the further keys make the order total all the same.
        order = np.lexsort((seq_id, rows, priority))[:capacity]
        return cls(
            capacity=capacity,
            topk_ids=ids[order],
            rows=rows[order],
            seq_id=seq_id[order],
            source_rank=np.concatenate([sample.source_rank for sample in samples])[order],
            priority=priority[order],
        )


@dataclass
class SampleBuilder:
    """Collects a `TokenSample` over the batches of one trace; holds at most about twice its capacity."""

    capacity: int
    source_key: int
    pieces: list[TokenSample] = field(default_factory=list)

    def add(self, batch: Batch) -> None:
        """Offer the tokens of `batch`."""
        if not self.capacity:
            return
        priority = row_priority(batch.rows, self.source_key)
        first = self.pieces[0] if self.pieces else None
        if first is not None and len(first) == self.capacity:
            picked = np.flatnonzero(priority < first.priority[-1])
        else:
            picked = np.arange(len(priority))
        if len(picked):
            self.pieces.append(TokenSample.of_batch(batch, picked, priority, self.capacity))
        if sum(len(piece) for piece in self.pieces) >= 2 * self.capacity:
            self.pieces = [TokenSample.union(self.pieces)]

    def finish(self) -> TokenSample | None:
        """Return the sample, or None when its capacity is 0."""
        return TokenSample.union(self.pieces) if self.pieces else None
