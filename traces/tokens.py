"""Where the batches of a trace come from: arrays, or a part of another trace. Each pickles with what it is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.batch import Batch

__all__ = ["Arrays", "OfSequences", "Selected"]

SPLIT_SHIFT = int(1e-9 * 2.0**64)  # d of `OfSequences`


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrays:
    """Arrays in memory.

    Attributes
    ----------
    topk_ids : (T, L, K) integers
    layer_ids : (L,) integers
    num_experts : int
    columns : mapping of str to array
        Columns that are present.
    """

    topk_ids: npt.NDArray[np.integer[Any]]
    layer_ids: npt.NDArray[np.integer[Any]]
    num_experts: int
    columns: Mapping[str, npt.NDArray[Any]]

    def read(self, max_tokens: int) -> Iterator[Batch]:
        """Yield the batches."""
        for start in range(0, len(self.topk_ids), max_tokens):
            part = slice(start, start + max_tokens)
            rows = np.arange(start, min(start + max_tokens, len(self.topk_ids)))
            yield Batch(
                topk_ids=self.topk_ids[part], rows=rows, **{name: value[part] for name, value in self.columns.items()}
            )

    def sha256(self) -> str:
        """Hash the arrays and what they are."""
        digest = hashlib.sha256(np.ascontiguousarray(self.topk_ids).tobytes())
        for name in sorted(self.columns):
            digest.update(name.encode() + np.ascontiguousarray(self.columns[name]).tobytes())
        shape, dtype = self.topk_ids.shape, self.topk_ids.dtype
        digest.update(f"{shape}{dtype}{self.layer_ids.tolist()}{self.num_experts}".encode())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Selected:
    """The tokens of another trace for which `keep` is true.

    Attributes
    ----------
    read_all, hash_all : callable
        `read` and `hash_source` of the other trace.
    keep : callable
        Returns a (T,) mask for a batch.
    note : str
        What is selected.
    """

    read_all: Callable[[int], Iterator[Batch]]
    hash_all: Callable[[], str]
    keep: Callable[[Batch], npt.NDArray[np.bool_]]
    note: str

    def read(self, max_tokens: int) -> Iterator[Batch]:
        """Yield the batches that hold such tokens."""
        for batch in self.read_all(max_tokens):
            selected = batch.select(self.keep(batch))
            if len(selected):
                yield selected

    def sha256(self) -> str:
        """Hash the other trace's hash and the note."""
        return hashlib.sha256(f"{self.hash_all()}|{self.note}".encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class OfSequences:
    """Whether tokens are of the sequences that are held out, or of the others: the rule of `Trace.split`.

    Attributes
    ----------
    share : float
        Share of the sequences that is held out, 0 < f < 1.
    held_out : bool
        Which part is meant.
    """

    share: float
    held_out: bool

    def __call__(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Return the mask of a batch's tokens, (T,)."""
        share = np.uint64(int(self.share * 2.0**64))
        key = batch.rows // 64 if batch.seq_id is None else np.asarray(batch.seq_id, dtype=np.int64)
        # The floor rises where the fraction of (s + 1) f + d is below f; uint64 wraps, which leaves the fraction.
        fraction = (key.astype(np.uint64) + np.uint64(1)) * share + np.uint64(SPLIT_SHIFT)
        mask: npt.NDArray[np.bool_] = (fraction < share) == self.held_out
        return mask
