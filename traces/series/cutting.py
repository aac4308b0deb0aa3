"""Cutting a trace into windows in one pass: counts of each, in parts of whole sequences, and a sample of its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.batch import COLUMNS, Batch
from traces.profile.kernels import count_by_source
from traces.series.window import Window
from traces.support.errors import InputError, Violations
from traces.thinning import WholeSequences, sequence_of
from traces.trace import BATCH_TOKENS, Trace

__all__ = ["PARTS", "Slices", "cut", "each_whole", "source_missing"]

Ints = npt.NDArray[np.int64]
PARTS = 32  # of a window at most: enough to draw from, and as many matrices (L, E) to keep
MAX_CHOICES = 8_000_000  # experts chosen by the tokens that are kept of a window: tokens x layers x top-k


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Which windows the tokens of each source fall into: equal slices of consecutive tokens.

    Attributes
    ----------
    tokens : mapping of int to int
        Of each source, in the order of first appearance; the single source 0 where sources don't count.
    windows : mapping of int to (W_s,) int64
        Of each source: the windows of its slices, in order.
    by_source : bool
    """

    tokens: Mapping[int, int]
    windows: Mapping[int, Ints]
    by_source: bool

    @classmethod
    def of(cls, trace: Trace, count: int | None, *, by_source: bool) -> Slices:
        """Return slices for `count` windows, in which sources take turns; one per source by default.

        Raises
        ------
        InputError
            If there are fewer tokens than windows, or fewer windows than sources.
        """
        tokens = _counted(trace, by_source)
        wanted = len(tokens) if count is None else count
        found = Violations()
        if not tokens:
            found.add("zero_tokens", trace.provenance.source, "The trace holds no tokens.", "Check the recording.")
        elif wanted < len(tokens):
            detail = f"{len(tokens)} sources don't fit in {wanted} windows of one source each."
            found.add("windows_range", "/windows", detail, f"Give at least {len(tokens)}, or cut by tokens.")
        found.raise_if_any()
        names = list(tokens)
        windows = {name: np.arange(number, wanted, len(names)) for number, name in enumerate(names)}
        for name, own in windows.items():
            if len(own) > tokens[name]:
                detail = f"{tokens[name]} tokens can't be cut into {len(own)} windows."
                found.add("windows_range", "/windows", detail, "Give fewer windows.")
        found.raise_if_any()
        return cls(tokens=tokens, windows=windows, by_source=by_source)

    @property
    def count(self) -> int:
        """Number of windows, W."""
        return sum(map(len, self.windows.values()))

    def name(self, window: int) -> str:
        """Return what a window is called."""
        for source, own in self.windows.items():
            place = np.flatnonzero(own == window)
            if len(place):
                turn = f"part {int(place[0]) + 1} of {len(own)}"
                if self.by_source:
                    return f"source {source}" if len(own) == 1 else f"source {source}, {turn}"
                return turn
        raise AssertionError(window)


def _counted(trace: Trace, by_source: bool) -> dict[int, int]:
    if not by_source and trace.num_tokens is not None:
        return {0: trace.num_tokens} if trace.num_tokens else {}
    tokens: dict[int, int] = {}
    for batch in trace.read(BATCH_TOKENS):
        if not by_source:
            tokens[0] = tokens.get(0, 0) + len(batch)
            continue
        names, first, counts = np.unique(np.asarray(batch.data_source), return_index=True, return_counts=True)
        for place in np.argsort(first):
            tokens[int(names[place])] = tokens.get(int(names[place]), 0) + int(counts[place])
    return {name: count for name, count in tokens.items() if count}


class _Assigned:
    """Tells the window of each token as they stream; a run of one sequence stays in the window where it begins."""

    def __init__(self, slices: Slices) -> None:
        self.slices = slices
        self._seen = dict.fromkeys(slices.tokens, 0)
        self._last: tuple[int, int, int] | None = None  # source, sequence and window of the last token

    def windows(self, batch: Batch, sequence: Ints) -> Ints:
        source = np.asarray(batch.data_source, np.int64) if self.slices.by_source else np.zeros(len(batch), np.int64)
        window = np.empty(len(batch), np.int64)
        for name in np.unique(source).tolist():
            there = np.flatnonzero(source == name)
            own, total = self.slices.windows[name], self.slices.tokens[name]
            position = self._seen[name] + np.arange(len(there))
            window[there] = own[position * len(own) // total]
            self._seen[name] += len(there)
        begins = np.r_[True, (np.diff(sequence) != 0) | (np.diff(source) != 0)]
        starts = np.flatnonzero(begins)
        first = window[starts]
        if self._last is not None and self._last[:2] == (int(source[0]), int(sequence[0])):
            first[0] = self._last[2]
        kept: Ints = first[np.cumsum(begins) - 1]
        self._last = (int(source[-1]), int(sequence[-1]), int(kept[-1]))
        return kept


class _Filled:
    """What is kept of one window while the trace is read."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        most = max(1024, MAX_CHOICES // (trace.num_layers * trace.top_k))
        self.sample = WholeSequences(most, trace.columns - {"gate_weights"})
        self.per_part = 1  # sequences
        self.parts = np.zeros((PARTS, trace.num_layers, trace.num_experts), np.int64)
        self._numbers: dict[int, int] = {}

    @property
    def sequences(self) -> int:
        return len(self._numbers)

    def add(self, batch: Batch, sequence: Ints) -> None:
        found, inverse = np.unique(sequence, return_inverse=True)
        numbers = np.array([self._numbers.setdefault(int(name), len(self._numbers)) for name in found], np.int64)
        while self.sequences > PARTS * self.per_part:
            self.join()
        part = (numbers // self.per_part)[inverse]
        for layer in range(self.trace.num_layers):
            count_by_source(batch.topk_ids, layer, part, self.parts)
        if not self.sample.full:
            self.sample.add(batch)

    def join(self) -> None:
        """Make parts of twice as many sequences."""
        self.parts[: PARTS // 2] = self.parts[0::2] + self.parts[1::2]
        self.parts[PARTS // 2 :] = 0
        self.per_part *= 2

    def window(self, name: str) -> Window:
        tokens, _ = self.sample.tokens(self.trace.num_layers, self.trace.top_k)
        columns: dict[str, Any] = {key: value for key in COLUMNS if (value := getattr(tokens, key)) is not None}
        kept = Trace.of(
            tokens.topk_ids,
            num_experts=self.trace.num_experts,
            layer_ids=self.trace.layer_ids,
            provenance=self.trace.provenance.noting(f"window: {name}"),
            **columns,
        )
        whole = self.sequences // self.per_part
        return Window(
            name=name,
            time=None,
            load=self.parts.sum(axis=0).astype(np.float64),
            parts=self.parts[:whole].astype(np.float64),
            per_part=self.per_part,
            tokens=kept,
        )


def cut(trace: Trace, slices: Slices) -> tuple[Window, ...]:
    """Read a trace once and return its windows.

    Raises
    ------
    InputError
        If the trace breaks a rule, or a window has no token of some layer.
    """
    assigned, filled = _Assigned(slices), [_Filled(trace) for _ in range(slices.count)]
    for batch in trace.batches():
        if not len(batch):
            continue
        sequence = sequence_of(batch)
        window = assigned.windows(batch, sequence)
        for number in np.unique(window).tolist():
            there = window == number
            filled[number].add(batch.select(there), sequence[there])
    return _settled(filled, [slices.name(number) for number in range(slices.count)])


def each_whole(traces: Sequence[Trace], names: Sequence[str]) -> tuple[Window, ...]:
    """Return a window of each trace, all of the same layers and experts.

    Raises
    ------
    InputError
        As `cut`.
    """
    filled = []
    for trace in traces:
        filled.append(_Filled(trace))
        for batch in trace.batches():
            if len(batch):
                filled[-1].add(batch, sequence_of(batch))
    return _settled(filled, names)


def _settled(filled: Sequence[_Filled], names: Sequence[str]) -> tuple[Window, ...]:
    found = Violations()
    for name, part in zip(names, filled, strict=True):
        if not part.parts.any(axis=(0, 2)).all():
            what = "no tokens" if not part.sequences else "no assignment in some layer"
            detail = f"The window {name!r} has {what}: sequences are not cut."
            found.add("empty_window", "/windows", detail, "Give fewer windows.")
    found.raise_if_any()
    return tuple(part.window(name) for name, part in zip(names, filled, strict=True))


def source_missing(trace: Trace) -> InputError:
    """Return the error on a trace that is to be cut by sources and does not tell them."""
    detail = f"{trace.provenance.source} does not say which source its tokens come from."
    remedy = "Give several files, or the column `data_source`; or cut by tokens."
    return InputError.of("no_sources", "/by", detail, remedy)
