"""The one pass over a trace that makes a profile: threads share the layers, the next batch is read meanwhile."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.batch import Batch
from traces.duplicates import check_duplicates
from traces.experts_base import counted_from_one, from_one
from traces.profile.kernels import count_by_source, count_coactivation, count_load, count_pairs
from traces.profile.sample import SampleBuilder, TokenSample
from traces.profile.sequences import SEQUENCE_BUCKETS, bucket_of
from traces.profile.windows import WindowedLoad
from traces.repeats import Repeats
from traces.support.errors import InputError
from traces.support.parallel import available_cores
from traces.trace import BATCH_TOKENS, Trace

__all__ = ["Tally", "count_trace"]

WINDOW_LIMIT = 64
KEY_ROWS = 64
TASKS = 4  # per thread and batch
MAX_SOURCE_RANKS = 65_536
Counts = npt.NDArray[np.int64]
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """What one pass over a trace counts; see `Profile` for the matrices.

    Attributes
    ----------
    digest : str
        Of the trace.
    notes : tuple of str
        Those of the trace, with what the whole of it tells.
    """

    tokens: int
    load: npt.NDArray[np.float64]
    affinity: Counts | None
    coactivation: Counts | None
    distant: dict[int, Counts]
    windows: WindowedLoad
    source_load: Counts | None
    sequence_load: Counts | None
    sample: TokenSample | None
    digest: str
    notes: tuple[str, ...]


class _Counter:
    """The matrices of one pass."""

    def __init__(
        self,
        trace: Trace,
        distances: tuple[int, ...],
        window_tokens: int,
        sample_tokens: int,
        source_key: int,
        pairs: bool,
    ) -> None:
        layers, experts = trace.num_layers, trace.num_experts
        self.trace = trace
        self.pairs = {d: np.zeros((max(layers - d, 0), experts, experts), np.int64) for d in distances}
        self.together = np.zeros((layers, experts, experts), np.int64) if pairs else None
        self.by_source = np.zeros((0, layers, experts), np.int64) if "source_rank" in trace.columns else None
        self.by_sequence = None
        if "seq_id" in trace.columns:
            self.by_sequence = np.zeros((SEQUENCE_BUCKETS, layers, experts), np.int64)
        self.window_tokens = window_tokens
        self.windows: list[WindowedLoad] = []
        self.source_key = source_key
        self.sample = SampleBuilder(sample_tokens, source_key)
        self.tokens = 0
        self.repeats = Repeats()

    def add(self, batch: Batch, run: Callable[[Callable[[int], None], range], None]) -> None:
        """Count one batch; `run(function, layers)` applies a function to every layer."""
        ids = batch.topk_ids
        self.sample.add(batch)
        self.repeats.mask(ids)
        self.tokens += len(ids)
        number = batch.rows // self.window_tokens
        starts = np.flatnonzero(np.r_[True, np.diff(number) != 0])
        stops = np.r_[starts[1:], len(ids)]
        window_load = np.zeros((len(starts), self.trace.num_layers, self.trace.num_experts), np.int64)
        if batch.source_rank is not None and self.by_source is not None:
            self._grow_sources(int(batch.source_rank.max(initial=-1)) + 1)
        bucket = None if batch.seq_id is None else bucket_of(batch.seq_id)

        def count_layer(layer: int) -> None:
            for distance, counts in self.pairs.items():
                if layer < len(counts):
                    part = np.zeros(counts.shape[1:], np.uint32)
                    count_pairs(ids, layer, distance, part)
                    counts[layer] += part
            if self.together is not None:
                part = np.zeros(self.together.shape[1:], np.uint32)
                count_coactivation(ids, layer, part)
                self.together[layer] += part
            count_load(ids, layer, stops, window_load)
            if batch.source_rank is not None and self.by_source is not None:
                count_by_source(ids, layer, batch.source_rank, self.by_source)
            if bucket is not None and self.by_sequence is not None:
                count_by_source(ids, layer, bucket, self.by_sequence)

        run(count_layer, range(self.trace.num_layers))
        if self.together is None or self.together.diagonal(axis1=1, axis2=2).any():
            check_duplicates(batch, self.trace)
        self.windows.append(
            WindowedLoad(
                window_tokens=self.window_tokens,
                limit=WINDOW_LIMIT,
                source=np.full(len(starts), self.source_key, np.uint64),
                index=number[starts],
                tokens=(stops - starts).astype(np.int64),
                load=window_load,
            )
        )
        if sum(len(part) for part in self.windows) > 2 * WINDOW_LIMIT:
            self.windows = [WindowedLoad.union(self.windows)]
            # Later windows start as wide as the present ones have become: the same result, less work.
            self.window_tokens = self.windows[0].window_tokens

    def _grow_sources(self, ranks: int) -> None:
        if self.by_source is None or ranks <= len(self.by_source):
            return
        if ranks > MAX_SOURCE_RANKS:
            raise InputError.of(
                "source_rank_range",
                f"{self.trace.provenance.source}#/source_rank",
                f"Source rank {ranks - 1} is larger than any deployment.",
                f"Give data-parallel ranks below {MAX_SOURCE_RANKS}.",
            )
        grown = np.zeros((ranks, *self.by_source.shape[1:]), np.int64)
        grown[: len(self.by_source)] = self.by_source
        self.by_source = grown


def count_trace(
    trace: Trace,
    workers: int | None,
    distances: tuple[int, ...],
    window_tokens: int,
    sample_tokens: int,
    *,
    pairs: bool = True,
) -> Tally:
    """Count `trace`; see `Profile.of`. Without `pairs`, only those of the distances above 1."""
    if any(d < 1 or d >= max(trace.num_layers, 2) for d in distances):
        raise InputError.of(
            "distance_range",
            "/distances",
            f"Layer distances {distances} don't fit {trace.num_layers} layers.",
            "`distances` start at 1 and are below the number of layers.",
        )
    if window_tokens < 1 or sample_tokens < 0:
        raise InputError.of(
            "profile_options",
            "/window_tokens",
            f"{window_tokens} tokens per window, {sample_tokens} to keep.",
            "Give counts: `window_tokens` of at least 1, `sample_tokens` of at least 0.",
        )
    counted = tuple(sorted({1, *distances} if pairs else {*distances} - {1}))
    _check_memory(trace, len(counted), pairs=pairs)
    threads = available_cores() if workers is None else max(1, workers)
    batch_tokens = min(BATCH_TOKENS, 2 * WINDOW_LIMIT * window_tokens)
    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(1) as reader:

        def run(function: Callable[[int], None], layers: range) -> None:
            parts = [layers[start :: TASKS * threads] for start in range(min(len(layers), TASKS * threads))]

            def work(part: range) -> None:
                for layer in part:
                    function(layer)

            for done in [pool.submit(work, part) for part in parts]:
                done.result()

        digest = pool.submit(lambda: trace.digest)

        batches = _read_ahead(_checked(trace, batch_tokens), reader)
        head = _first_rows(batches)
        counter = _Counter(trace, counted, window_tokens, sample_tokens, _source_key(head), pairs)
        for batch in itertools.chain(head, batches):
            counter.add(batch, run)
    if not counter.tokens:
        raise InputError.of(
            "zero_tokens",
            trace.provenance.source,
            "The trace holds no tokens.",
            "Check the recording and any selection of it.",
        )
    windows = WindowedLoad.union(counter.windows)
    load = windows.load.sum(axis=0)
    if (together := counter.together) is not None:
        for part in together:  # by layer: a second array of all of them would be the largest of the whole pass
            part += part.T.copy()
        diagonal = np.arange(trace.num_experts)
        together[:, diagonal, diagonal] = load
    if trace.provenance.experts_inferred and counted_from_one(load):
        raise from_one(trace.provenance.source, trace.num_experts, columns=False)
    return Tally(
        tokens=counter.tokens,
        load=load.astype(np.float64),
        affinity=counter.pairs.pop(1, None),
        coactivation=together,
        distant=counter.pairs,
        windows=windows,
        source_load=counter.by_source,
        sequence_load=counter.by_sequence,
        sample=counter.sample.finish(),
        digest=digest.result(),
        notes=counter.repeats.notes(trace),
    )


def _checked(trace: Trace, max_tokens: int) -> Iterator[Batch]:
    """Read `trace` with all checks but that for duplicates, which counting finds on the way."""
    for batch in trace.read(max_tokens):
        checks.check_batch(batch, trace)
        if len(batch):
            yield batch


def _check_memory(trace: Trace, distances: int, *, pairs: bool) -> None:
    """Refuse matrices that don't fit this machine, before they are made."""
    size = 8 * trace.num_experts**2 * trace.num_layers * (distances + 2 * pairs)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise InputError.of(
            "profile_too_large",
            trace.provenance.source,
            f"{trace.num_layers} layers of {trace.num_experts} experts take {size >> 30} of {memory >> 30} GiB.",
            "Check `num_experts` and the order of the axes.",
        )


def _first_rows(batches: Iterator[Batch]) -> list[Batch]:
    """Take the batches that hold the first rows, however few a batch has."""
    head: list[Batch] = []
    while sum(map(len, head)) < KEY_ROWS and (batch := next(batches, None)) is not None:
        head.append(batch)
    return head


def _source_key(head: list[Batch]) -> int:
    """Key of a source: a hash of its first rows, so that it is known before the whole file is read."""
    content, left = [b"", b"", b""], KEY_ROWS
    for batch in head:
        first = batch.select(slice(0, left))
        left -= len(first)
        columns = (first.topk_ids, first.rows, first.rows[:0] if first.seq_id is None else first.seq_id)
        for number, column in enumerate(columns):
            content[number] += column.astype(np.int64).tobytes()
    return int.from_bytes(hashlib.blake2b(b"".join(content), digest_size=8).digest(), "little")


def _read_ahead(items: Iterator[Item], pool: ThreadPoolExecutor) -> Iterator[Item]:
    """Yield `items`, producing the next one in `pool` while the caller works on the last."""
    pending: Future[Item | None] = pool.submit(next, items, None)
    while (item := pending.result()) is not None:
        pending = pool.submit(next, items, None)
        yield item
