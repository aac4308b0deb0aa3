"""FLAME-MoE traces: one Parquet file per layer, ``indices`` list<int16>[6] and ``scores`` list<float16>[6] per token.

The files of a checkpoint (``layer_02.parquet`` and so on) hold the same tokens in the same order; a folder of them is
one trace. A file does not say which layer it is of: the number in its name does, which counts from 1 as Megatron does.

References
----------
Kang et al., "FLAME-MoE: A Transparent End-to-End Research Platform for Mixture-of-Experts Language Models", 2025; data
set ``CMU-FLAME/FLAME-MoE-Traces``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.batch import Batch
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile, guarded, tokens_per_batch
from traces.decoding.parquet_lists import unnest
from traces.decoding.parquet_pages import check_pages
from traces.decoding.parquet_schema import parquet_columns
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.parquet import BUFFER_BYTES, SCAN_TOKENS, import_pyarrow
from traces.formats.reader import Reader
from traces.support.errors import InputError, Violations
from traces.trace import Trace

__all__ = ["READER"]

IDS, SCORES = "indices", "scores"
LAYER_NUMBER = re.compile(r"(\d{1,6})\D*$")
MAX_TOP_K = 1024
READ_TOKENS = 8192  # of each layer; all of them are open at once


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """The file of one layer."""

    file: TraceFile
    number: int | None
    tokens: int
    top_k: int
    scored: bool

    def parts(self, names: tuple[str, ...], top_k: int) -> Iterator[tuple[npt.NDArray[Any], ...]]:
        """Yield the columns in parts of any length, ids padded with -1 and scores with 0 to `top_k`."""
        from pyarrow import ArrowException

        self.file.check_unchanged()
        with guarded(self.file.name, ArrowException, KeyError, TypeError):
            opened = import_pyarrow().ParquetFile(
                self.file.path, pre_buffer=False, buffer_size=BUFFER_BYTES // 16, page_checksum_verification=True
            )
        done = 0
        with opened:
            tables = opened.iter_batches(READ_TOKENS, columns=list(names), use_threads=False)
            while True:
                with guarded(self.file.name, ArrowException, KeyError, TypeError):
                    table = next(tables, None)
                if table is None:
                    break
                yield tuple(self._folded(table, name, top_k, done) for name in names)
                done += table.num_rows
        if done != self.tokens:
            detail = f"{done} of {self.tokens} tokens are there."
            raise InputError.of("token_count", self.file.name, detail, "Copy it again.")

    def _folded(self, table: Any, name: str, top_k: int, start: int) -> npt.NDArray[Any]:
        place = f"{self.file.name}#/{name}"
        lists = unnest(table.column(name), place, start)
        if name == IDS:
            checks.check_ids_dtype(lists.values.dtype, f"{self.file.name}#")
        elif lists.values.dtype.kind != "f":
            raise InputError.of("column_dtype", place, "Scores are no floats.", "Convert the column.")
        if lists.inner is not None or (lists.outer > top_k).any():
            row = start if lists.inner is not None else start + int(np.argmax(lists.outer > top_k))
            raise InputError.of(
                "topk_ids_shape", f"{place}, row {row}", f"Expected a list of at most {top_k}.", "Check the file."
            )
        if (lists.outer == top_k).all():
            return lists.values.reshape(len(lists.outer), top_k)
        folded = np.full((len(lists.outer), top_k), -1 if name == IDS else 0, np.int64 if name == IDS else np.float32)
        folded[np.arange(top_k) < lists.outer[:, np.newaxis]] = lists.values
        return folded


def open_bundle(bundle: Bundle, hints: Hints) -> Trace:
    """Open the files of all layers, which are read in step."""
    members = [
        (member.rpartition("/")[2], file)
        for member, file in zip(bundle.members, bundle.files, strict=True)
        if IDS in parquet_columns(file)
    ]
    layers = [_look_at(base, file, hints) for base, file in members]
    numbered = all(layer.number is not None for layer in layers)
    if numbered:
        layers.sort(key=lambda layer: layer.number or 0)
    _check_same(layers, bundle.name)
    num_tokens, top_k = layers[0].tokens, max(layer.top_k for layer in layers)
    scored = all(layer.scored for layer in layers)
    names = (IDS, SCORES) if scored else (IDS,)
    row_bytes = len(layers) * top_k * 16
    tokens_per_batch(1, row_bytes, bundle.name)

    def read(max_tokens: int, wanted: tuple[str, ...] = names) -> Iterator[Batch]:
        size = tokens_per_batch(max_tokens, row_bytes, bundle.name)
        streams = [_exactly(layer.parts(wanted, top_k), size) for layer in layers]
        start = 0
        for parts in zip(*streams, strict=True):
            columns = [np.stack(column, axis=1) for column in zip(*parts, strict=True)]
            weights = columns[1].astype(np.float32) if len(columns) > 1 else None
            yield Batch(topk_ids=columns[0], rows=np.arange(start, start + len(columns[0])), gate_weights=weights)
            start += len(columns[0])

    def largest_id() -> int:
        return max((int(batch.topk_ids.max(initial=-1)) for batch in read(SCAN_TOKENS, (IDS,))), default=-1)

    stated = None
    # A model counts from 0, and the files are all its MoE layers, in order: then its numbers are taken.
    if numbered and hints.layer_ids is None and hints.model is None:
        stated = np.array([layer.number for layer in layers])
    axes = Axes.settle(bundle, hints, len(layers), largest_id, layer_ids=stated)
    notes = []
    if stated is not None:
        notes.append(f"layer_ids are the numbers in the file names, {stated.tolist()}; FLAME-MoE counts layers from 1.")
    if len(members) < len(bundle.files):
        notes.append(f"{len(bundle.files) - len(members)} other files were left out.")
    return axes.trace(
        bundle,
        "flame",
        tuple(notes),
        top_k=top_k,
        num_tokens=num_tokens,
        columns=frozenset({"gate_weights"} if scored else ()),
        read=read,
    )


def _look_at(base: str, file: TraceFile, hints: Hints) -> _Layer:
    from pyarrow import ArrowException

    with guarded(file.name, ArrowException, KeyError, TypeError), file.open() as stream:
        opened = import_pyarrow().ParquetFile(stream)
        check_pages(stream, opened.metadata, hints.unpack, file.size, file.name)
        tokens, names = opened.metadata.num_rows, list(opened.schema_arrow.names)
        first = next(opened.iter_batches(1, columns=[IDS], use_threads=False), None) if tokens else None
    top_k = 0 if first is None else int(unnest(first.column(IDS), f"{file.name}#/{IDS}", 0).outer.max(initial=0))
    top_k = hints.experts_per_token or top_k
    if not 1 <= top_k <= MAX_TOP_K:
        raise InputError.of("topk_ids_shape", f"{file.name}#/{IDS}", f"Top-{top_k}.", "Check the recording.")
    number = LAYER_NUMBER.search(base)
    return _Layer(
        file=file,
        number=None if number is None else int(number[1]),
        tokens=tokens,
        top_k=top_k,
        scored=SCORES in names,
    )


def _check_same(layers: list[_Layer], name: str) -> None:
    """Refuse layers of different tokens, or twice the same layer."""
    found = Violations()
    seen: dict[int, str] = {}
    for layer in layers:
        if layer.tokens != layers[0].tokens:
            detail = f"{layer.tokens} tokens, where {layers[0].file.name} has {layers[0].tokens}."
            found.add("token_count", layer.file.name, detail, "Give the layers of one recording, whole.")
        if layer.number is None and len(layers) > 1:
            found.add("layer_unknown", layer.file.name, "No layer number in the name.", "Name it layer_02.parquet.")
        elif layer.number is not None and layer.number in seen:
            detail = f"Layer {layer.number} is also in {seen[layer.number]}."
            found.add("duplicate_layer", layer.file.name, detail, "Give the layers of one checkpoint.")
        seen[-1 if layer.number is None else layer.number] = layer.file.name
    if not layers:
        found.add("zero_tokens", name, "No file has the columns of the format.", "Check the files.")
    found.raise_if_any()


def _exactly(parts: Iterator[tuple[npt.NDArray[Any], ...]], size: int) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    """Cut parts of any length to `size` rows each, so that layers stay in step whatever their row groups are."""
    held: tuple[npt.NDArray[Any], ...] | None = None
    for part in parts:
        columns = part if held is None else tuple(np.concatenate(pair) for pair in zip(held, part, strict=True))
        whole = len(columns[0]) // size * size
        for first in range(0, whole, size):
            yield tuple(column[first : first + size] for column in columns)
        held = tuple(column[whole:] for column in columns)
    if held is not None and len(held[0]):
        yield held


def _is_flame(file: TraceFile) -> bool:
    return IDS in parquet_columns(file)


READER = Reader(
    name="flame",
    content="FLAME-MoE Parquet, one file per layer with lists indices and scores",
    sniff=_is_flame,
    open=lambda file, hints: open_bundle(Bundle.single(file), hints),
    sniff_bundle=lambda bundle: any(map(_is_flame, bundle.files)),
    open_bundle=open_bundle,
)
