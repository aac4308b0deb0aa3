"""The project's own `.npz`: one array per column, read in step and never as a whole."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.batch import COLUMNS, Batch, as_column
from traces.decoding.archive import MAGIC, Archive, is_torch_archive, open_archive
from traces.decoding.files import TraceFile, tokens_per_batch
from traces.decoding.npz_keys import is_foreign
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.support.errors import InputError, Violations
from traces.trace import Trace

__all__ = ["READER"]

KNOWN = ("topk_ids", *COLUMNS, "layer_ids", "num_experts")
SCAN_TOKENS = 65_536


def open_npz(file: TraceFile, hints: Hints) -> Trace:
    """Open a trace; only headers are read, and the ids once if `num_experts` is not given."""
    with file.open() as stream, open_archive(stream, file.name) as archive:
        hints.unpack.check(file.size, archive.unpacked_bytes, file.name)
        notes = _sort_keys(archive)
        columns = tuple(name for name in COLUMNS if name in archive.keys)
        ids = archive.header("topk_ids")
        checks.check_ids_shape(ids.shape, ids.dtype, f"{file.name}#")
        checks.check_columns(ids.shape, {name: archive.header(name) for name in columns}, f"{file.name}#")
        layer_ids = _small(archive, "layer_ids", ids.shape[1:2])
        experts = _small(archive, "num_experts", ())
    num_tokens, num_layers, top_k = ids.shape
    tokens_per_batch(1, ids.row_bytes, file.name)

    def read(max_tokens: int, names: tuple[str, ...] = columns) -> Iterator[Batch]:
        step = tokens_per_batch(max_tokens, ids.row_bytes, file.name)
        with file.open() as stream, open_archive(stream, file.name) as archive:
            parts = {name: archive.stream(name) for name in ("topk_ids", *names)}
            for start in range(0, num_tokens, step):
                count = min(step, num_tokens - start)
                values = {name: part.rows(count) for name, part in parts.items()}
                taken = {name: as_column(name, values[name], f"{file.name}#") for name in names}
                yield Batch(topk_ids=values["topk_ids"], rows=np.arange(start, start + count), **taken)

    def largest_id() -> int:
        return max((int(batch.topk_ids.max()) for batch in read(SCAN_TOKENS, ())), default=-1)

    axes = Axes.settle(
        file, hints, num_layers, largest_id, layer_ids=layer_ids, num_experts=None if experts is None else experts[()]
    )
    return axes.trace(file, "npz", notes, top_k=top_k, num_tokens=num_tokens, columns=frozenset(columns), read=read)


def _sort_keys(archive: Archive) -> tuple[str, ...]:
    """Refuse what can't be a trace, and misspelt columns; return notes on arrays that are left out."""
    keys = archive.keys
    if {"header", "load"} <= set(keys):
        raise InputError.of(
            "is_a_profile", archive.name, "This is a saved profile, not a trace.", "Read it with Profile.load_file."
        )
    absent = [name for name in KNOWN if name not in keys]
    unknown = [key for key in keys if key not in KNOWN]
    found = Violations()
    for key in unknown:
        # Only names that are missing can have been misspelt: `token_ids` beside `topk_ids` is metadata.
        close = difflib.get_close_matches(key.lower().replace("-", "_"), absent, n=1, cutoff=0.8)
        if close:
            found.add("unknown_column", f"{archive.name}#/{key}", "No such column.", f"Did you mean {close[0]}?")
    if "topk_ids" in absent and not found.found:
        listed = ", ".join(keys[:10])
        found.add(
            "topk_ids_missing",
            archive.name,
            f"There is no topk_ids array; there is {listed or 'nothing'}.",
            "Save topk_ids.",
        )
    found.raise_if_any()
    return tuple(f"Array {key!r} is no trace column and was left out." for key in unknown)


def _small(archive: Archive, key: str, shape: tuple[int, ...]) -> npt.NDArray[Any] | None:
    if key not in archive.keys:
        return None
    stream = archive.stream(key)
    if stream.header.shape != shape:
        raise InputError.of(
            f"{key}_shape",
            f"{archive.name}#/{key}",
            f"Expected shape {shape}; got {stream.header.shape}.",
            "Save it again.",
        )
    return stream.whole()


READER = Reader(
    name="npz",
    content="topk_ids (T, L, K) and optional columns as NumPy arrays",
    sniff=lambda file: file.head.startswith(MAGIC) and not is_torch_archive(file) and not is_foreign(file),
    open=open_npz,
)
