"""The doctor's one pass over tokens: what its rules need to know, in memory that does not grow with the trace."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.batch import Batch
from traces.doctor import kernels
from traces.doctor.evidence import Evidence
from traces.doctor.kernels import MISSING, OTHER, OTHER_TWICE, ZERO, Seen
from traces.doctor.sequences import Sequences
from traces.duplicates import check_duplicates
from traces.profile.sample import row_priority
from traces.repeats import LEAST_ROWS, LEAST_SHARE, Repeats
from traces.rules import check_batch
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["FILLERS", "PHASES", "UNKNOWN", "Observation"]

FILLERS = (
    127,
    255,
    32_767,
    65_535,
    2_147_483_647,
    4_294_967_295,
)  # -1 in the types that ids are kept in, or their ends
UNKNOWN, PHASES = 2, 3
MOST_CELLS = 65_536
PART_TOKENS = 4_096
BEYOND_CHANCE = 10  # times as many rows of zeros as independent layers would make
HALVES = 1  # key of the hash that halves the sequences
COMMON_SHARE = 0.1  # of all rows: a row that begins every sequence has that where they are of ten tokens
TWICE_EACH = 2
COMMON = 16_384  # rows that are followed as common ones
Ints = npt.NDArray[np.int64]


@dataclass
class Observation:
    """What was seen of a trace so far.

    Attributes
    ----------
    trace : Trace
        Only its axes and its source are looked at.
    seen : Seen
    sequences : Sequences or None
        None where the trace does not name sequences.
    rows : int
        Rows so far.
    other : (least, largest)
        Of the entries that are no ids.
    refused : InputError or None
        The first expert that a token lists twice, where nobody states the number of experts: it may be none.
    """

    trace: Trace
    seen: Seen = field(init=False)
    sequences: Sequences | None = None
    rows: int = 0
    other: tuple[int, int] = (0, 0)
    last: Ints | None = None
    refused: InputError | None = None

    def __post_init__(self) -> None:
        layers, top_k = self.trace.num_layers, self.trace.top_k
        cells = max(256, self.trace.num_experts) + 2
        self.seen = Seen(
            np.zeros((2 * PHASES, layers, cells), np.int64),
            np.zeros((top_k, cells), np.int64),
            np.zeros((2 * PHASES, layers), np.int64),
            np.zeros(layers, np.int64),
            np.zeros((2 * PHASES, 5), np.int64),
            np.full(5, -1, np.int64),
            np.zeros(cells, np.int64),
            np.zeros((3, COMMON), np.int64),
        )
        if "seq_id" in self.trace.columns:
            self.sequences = Sequences()

    def add(self, batch: Batch) -> None:
        """Take in one batch of a pass.

        Raises
        ------
        InputError
            If it breaks a rule that the doctor has no finding for: weights that are NaN, an expert that a token lists
            twice, and so on.
        """
        ids = batch.topk_ids
        if not len(ids):
            return
        self._check(batch)
        low, high = int(ids.min()), int(ids.max())
        self.other = (min(self.other[0], low), max(self.other[1], high))
        self._grow(min(high, MOST_CELLS - 1) + 1)
        known = batch.phase is not None
        phase = np.ascontiguousarray(batch.phase, np.uint8) if known else np.full(len(ids), UNKNOWN, np.uint8)
        before = self.repeated_ids
        # Fillers may repeat within a token; where nobody states the number of experts, the largest id may be one.
        experts = self.trace.num_experts
        stop = experts - (self.trace.provenance.experts_inferred and experts - 1 in FILLERS)
        part = phase
        if self.sequences is not None and batch.seq_id is not None and known:
            half = row_priority(np.asarray(batch.seq_id, np.int64), HALVES) & np.uint64(1)
            part = phase + (PHASES * half).astype(np.uint8)
        parts = [self._observe(batch, part, stop, start) for start in range(0, len(ids), PART_TOKENS)]
        hashes = np.concatenate(parts)
        if self.repeated_ids > before:
            self._refuse(replace(batch, topk_ids=_listed(ids, stop)))
        self.rows += len(ids)
        if self.sequences is not None and batch.seq_id is not None:
            self.sequences.add(hashes, batch.seq_id, phase)

    @property
    def repeated_ids(self) -> int:
        """How often a token lists an expert twice."""
        return int(self.seen.rows[:, OTHER_TWICE].sum())

    def _refuse(self, batch: Batch) -> None:
        try:
            check_duplicates(batch, self.trace)
        except InputError as error:
            if not self.trace.provenance.experts_inferred:
                raise
            self.refused = self.refused or error

    def _observe(self, batch: Batch, phase: npt.NDArray[np.uint8], stop: int, start: int) -> kernels.Hashes:
        """Observe a part of a batch, as int64 whatever its ids are kept in: the loop is compiled once."""
        part = slice(start, start + PART_TOKENS)
        ids = np.ascontiguousarray(batch.topk_ids[part], np.int64)
        last = ids[0] if self.last is None else self.last
        rows = np.ascontiguousarray(batch.rows[part], np.int64)
        tell = ids.shape[2] > 1 or Repeats.tells(self.trace)
        hashes = kernels.observe_rows(ids, rows, phase[part], last, self.last is not None, stop, tell, self.seen)
        self.last = ids[-1].copy()
        return hashes

    def _check(self, batch: Batch) -> None:
        """Check everything but the ids' range."""
        ids, experts = batch.topk_ids, self.trace.num_experts
        if ids.ndim == 3 and len(ids) and (ids.max() >= experts or (ids.dtype.kind == "i" and ids.min() < -1)):
            wide = ids.astype(np.int64)
            batch = replace(batch, topk_ids=np.where((wide >= experts) | (wide < -1), -1, wide))
        check_batch(batch, self.trace)

    def _grow(self, cells: int) -> None:
        have = self.seen.ids.shape[2] - 2
        if cells <= have:
            return
        cells = min(max(cells, 2 * have), MOST_CELLS)

        def grown(counts: Ints) -> Ints:
            larger = np.zeros((*counts.shape[:-1], cells + 2), np.int64)
            larger[..., :have], larger[..., cells:] = counts[..., :have], counts[..., have:]
            return larger

        self.seen = self.seen._replace(
            ids=grown(self.seen.ids), columns=grown(self.seen.columns), twice=grown(self.seen.twice)
        )

    def settle_zeros(self) -> None:
        """Take rows of nothing but zeros for tokens, with K = 1, where chance makes as many of them."""
        zero = self.seen.rows[:, ZERO]
        if self.trace.top_k > 1 or not zero.any():
            return
        tokens = self.seen.tokens.sum(axis=0)
        first = self.seen.ids[:, :, 0].sum(axis=0)
        chance = float(np.divide(first, tokens, out=np.zeros(len(tokens)), where=tokens > 0).prod())
        if zero.sum() >= max(LEAST_ROWS, LEAST_SHARE * self.rows) and zero.sum() > BEYOND_CHANCE * chance * self.rows:
            return
        self.seen.ids[:, :, 0] += zero[:, np.newaxis]
        self.seen.columns[0, 0] += zero.sum() * len(tokens)
        self.seen.tokens[:] += zero[:, np.newaxis]
        self.seen.rows[:, ZERO] = 0

    def common_row(self) -> tuple[int, int] | None:
        """Return how often the most common row was seen at least, and the first of them; None where that is no wonder.

        The first rows of all sequences may be alike: once in each.
        """
        known = 0 if self.sequences is None else self.sequences.number
        best = int(self.seen.common[1].argmax())
        count, first = int(self.seen.common[1, best]), int(self.seen.common[2, best])
        told = count >= max(LEAST_ROWS, COMMON_SHARE * self.rows) and count >= TWICE_EACH * known
        return (count, first) if told else None

    @property
    def by_id(self) -> Ints:
        """Entries by id, all layers and phases together, (V,)."""
        counts: Ints = self.seen.ids[:, :, :MISSING].sum(axis=(0, 1))
        return counts

    @property
    def missing(self) -> int:
        """Entries that are -1."""
        return int(self.seen.ids[:, :, MISSING].sum())

    @property
    def no_ids(self) -> int:
        """Entries that no id can be: below -1, or beyond every model."""
        return int(self.seen.ids[:, :, OTHER].sum())

    @property
    def entries(self) -> int:
        """Entries in rows and layers that are not all zero."""
        return int(self.seen.ids.sum())

    def evidence(self, num_experts: int, phase: int | None = None, half: int | None = None) -> Evidence:
        """Return the loads of the experts below `num_experts`, of all tokens or those of one phase.

        `half`: of one half of the sequences only, where these are known.
        """
        chosen = slice(phase, None, PHASES)
        if phase is None:
            chosen = slice(None)
        elif half is not None:
            chosen = slice(phase + PHASES * half, phase + PHASES * half + 1)
        load = self.seen.ids[chosen, :, :MISSING].sum(axis=0)[:, :num_experts]
        if load.shape[1] < num_experts:
            load = np.pad(load, ((0, 0), (0, num_experts - load.shape[1])))
        return Evidence(
            layer_ids=self.trace.layer_ids,
            load=load.astype(np.float64),
            tokens=self.seen.tokens[chosen].sum(axis=0).astype(np.float64),
            top_k=self.trace.top_k,
        )


def _listed(ids: npt.NDArray[Any], stop: int) -> Ints:
    """Return the ids without those that may repeat within a token, and without rows of a single one, which are told."""
    kept = np.where(ids >= stop, -1, ids.astype(np.int64))
    kept[(kept == kept[:, :1, :1]).all(axis=(1, 2))] = -1
    return kept
