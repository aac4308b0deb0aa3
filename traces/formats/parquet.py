"""Parquet: one row per token, read batch by batch (extra `parquet`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from traces import rules as checks
from traces.batch import COLUMNS, Batch, as_column
from traces.decoding.files import TraceFile, guarded, tokens_per_batch
from traces.decoding.parquet_lists import Layout, numbers, padded, unnest
from traces.decoding.parquet_pages import check_pages
from traces.decoding.parquet_schema import PARQUET, parquet_columns
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.support.errors import InputError, Violations
from traces.trace import Trace

__all__ = ["READER", "import_pyarrow"]

SCAN_TOKENS = 32_768
BUFFER_BYTES = 1 << 20
METADATA = ("num_experts", "top_k", "layer_ids")
ENGINE_COLUMNS = frozenset({"indices"})  # of other readers' files


def import_pyarrow() -> Any:
    """Return the module `pyarrow.parquet`; InputError if pyarrow is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError.of(
            "missing_extra", "/format", "Parquet needs pyarrow.", "Run: pip install 'moe-placement[parquet]'"
        ) from error
    return pyarrow.parquet


def open_parquet(file: TraceFile, hints: Hints) -> Trace:
    """Open a trace; the ids are read once if the schema's metadata don't state the axes."""
    parquet = import_pyarrow()
    from pyarrow import ArrowException

    with guarded(file.name, ArrowException, KeyError, TypeError), file.open() as stream:
        opened = parquet.ParquetFile(stream)
        schema, num_tokens = opened.schema_arrow, opened.metadata.num_rows
        names = list(schema.names)
        stated = _metadata(schema.metadata or {}, file.name)
        check_pages(stream, opened.metadata, hints.unpack, file.size, file.name)
    notes = _check_names(names, file.name)
    columns = tuple(name for name in COLUMNS if name in names)

    def tables(wanted: tuple[str, ...], tokens: int) -> Iterator[Any]:
        file.check_unchanged()
        with guarded(file.name, ArrowException, KeyError, TypeError):
            # Buffered and not pre-fetched: else a whole row group would be in memory.
            opened = parquet.ParquetFile(
                file.path, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True
            )
        done = 0
        with opened:
            batches = opened.iter_batches(tokens, columns=list(wanted), use_threads=False)
            while True:
                with guarded(file.name, ArrowException, KeyError, TypeError):
                    table = next(batches, None)
                if table is None:
                    break
                yield done, table
                done += table.num_rows
        if done != num_tokens:
            raise InputError.of("token_count", file.name, f"{done} of {num_tokens} tokens are there.", "Copy it again.")

    def ids_of(table: Any, start: int) -> Any:
        lists = unnest(table.column("topk_ids"), f"{file.name}#/topk_ids", start)
        checks.check_ids_dtype(lists.values.dtype, f"{file.name}#")
        return lists

    layout = Layout.settle(
        file.name,
        top_k=stated.get("top_k"),
        num_layers=None if (layers := stated.get("layer_ids", hints.layer_ids)) is None else len(np.atleast_1d(layers)),
        parts=lambda: (ids_of(table, start) for start, table in tables(("topk_ids",), SCAN_TOKENS)),
    )
    row_bytes = layout.num_layers * layout.top_k * 8
    tokens_per_batch(1, row_bytes, file.name)

    def read(max_tokens: int) -> Iterator[Batch]:
        for start, table in tables(("topk_ids", *columns), tokens_per_batch(max_tokens, row_bytes, file.name)):
            lists = ids_of(table, start)
            taken: dict[str, Any] = {}
            for name in columns:
                place = f"{file.name}#/{name}"
                if name == "gate_weights":
                    weights = unnest(table.column(name), place, start)
                    weights.check_like(lists, place)
                    values = padded(weights, layout, place, start, 0)
                else:
                    values = numbers(table.column(name), place, start)
                taken[name] = as_column(name, values, f"{file.name}#")
            ids = padded(lists, layout, f"{file.name}#/topk_ids", start, -1)
            yield Batch(topk_ids=ids, rows=np.arange(start, start + len(ids)), **taken)

    def largest_id() -> int:
        parts = (ids_of(table, start).values for start, table in tables(("topk_ids",), SCAN_TOKENS))
        return max((int(values.max()) for values in parts if values.size), default=-1)

    axes = Axes.settle(
        file,
        hints,
        layout.num_layers,
        largest_id,
        layer_ids=stated.get("layer_ids"),
        num_experts=stated.get("num_experts"),
    )
    return axes.trace(
        file, "parquet", notes, top_k=layout.top_k, num_tokens=num_tokens, columns=frozenset(columns), read=read
    )


def _metadata(metadata: dict[bytes, bytes], place: str) -> dict[str, Any]:
    stated: dict[str, Any] = {}
    for name in METADATA:
        if (text := metadata.get(name.encode())) is not None:
            value = json.loads(text)
            integers = value if name == "layer_ids" and isinstance(value, list) else [value]
            if any(type(item) is not int or not 0 <= item < 1 << 31 for item in integers):
                raise InputError.of(
                    "metadata_type", f"{place}#/{name}", f"Unexpected {str(value)[:40]}.", "Write integers."
                )
            stated[name] = value
    return stated


def _check_names(names: list[str], place: str) -> tuple[str, ...]:
    found = Violations()
    known = ("topk_ids", *COLUMNS)
    meta = [name for name in names if name.startswith("meta_")]
    for name in names:
        if name not in known and name not in meta:
            found.add(
                "unknown_column", f"{place}#/{name[:40]}", "No such column.", "Drop it, or name metadata meta_..."
            )
        elif names.count(name) > 1:
            found.add("duplicate_column", f"{place}#/{name[:40]}", "The column occurs twice.", "Drop one.")
    if "topk_ids" not in names:
        found.add("topk_ids_missing", place, "There is no column topk_ids.", "Save topk_ids as lists.")
    found.raise_if_any()
    return tuple(f"Column {name!r} is no trace column and was left out." for name in meta)


READER = Reader(
    name="parquet",
    content="one row per token, topk_ids as lists",
    sniff=lambda file: file.head.startswith(PARQUET) and ENGINE_COLUMNS.isdisjoint(parquet_columns(file)),
    open=open_parquet,
)
