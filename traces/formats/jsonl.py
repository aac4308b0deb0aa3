"""JSON Lines: one object per token, after an optional header line.

    {"format": "moe-placement-trace", "version": 1, "num_experts": 64, "top_k": 6, "layer_ids": [1, 2, 3]}
    {"topk_ids": [[5, 9, 1, 7, 8, 2], [6, 4, 3, 2, 1, 0], [9, 8]], "seq_id": 0}

A layer with fewer than top_k ids is padded with -1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from traces.batch import Batch
from traces.decoding.files import TraceFile, tokens_per_batch
from traces.decoding.int_lists import read_records
from traces.decoding.json_objects import ENGINE_KEYS, first_keys
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.shared.json_rows import Token, batch_of, parse_token, read_header
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["READER"]

LIST_TOKENS = 4096  # tokens held as Python lists at once


@dataclass
class _Scan:
    """What a pass over the tokens finds."""

    tokens: int = 0
    layers: int = 0
    top_k: int = 0
    largest_id: int = -1
    columns: frozenset[str] = frozenset()
    meta: frozenset[str] = frozenset()

    def add(self, token: Token) -> None:
        """Take in one token."""
        if not self.tokens:
            self.layers, self.columns = len(token.topk_ids), frozenset(token.columns)
        self.tokens += 1
        self.meta |= token.meta
        if isinstance(token.topk_ids, np.ndarray):
            self.top_k = max(self.top_k, token.topk_ids.shape[1])
            self.largest_id = max(self.largest_id, int(token.topk_ids.max()))
            return
        for ids in token.topk_ids:
            self.top_k = max(self.top_k, len(ids))
            self.largest_id = max(self.largest_id, max(ids, default=-1))


def open_jsonl(file: TraceFile, hints: Hints) -> Trace:
    """Open a trace; it is read once, unless a header states all that is needed."""
    header, tokens = _open(file)
    complete = {"num_experts", "top_k", "num_tokens", "layer_ids"} <= set(header)
    scan = _Scan()
    for token in tokens:
        scan.add(token)
        if complete:
            break
    num_layers = scan.layers or len(header.get("layer_ids", ()))
    top_k = header.get("top_k", scan.top_k)
    if not num_layers or not top_k:
        raise InputError.of("zero_tokens", file.name, "There is no token with an expert.", "Check the recording.")
    row_bytes = num_layers * top_k * (16 if "gate_weights" in scan.columns else 8)
    tokens_per_batch(1, row_bytes, file.name)

    def read(max_tokens: int) -> Iterator[Batch]:
        step = tokens_per_batch(min(max_tokens, LIST_TOKENS), row_bytes, file.name)
        done, part = 0, []
        for token in _open(file)[1]:
            part.append(token)
            if len(part) == step:
                yield batch_of(part, done, num_layers, top_k, scan.columns)
                done, part = done + step, []
        if part:
            yield batch_of(part, done, num_layers, top_k, scan.columns)
        _check_count(header, done + len(part), file)

    if not complete:
        _check_count(header, scan.tokens, file)
    axes = Axes.settle(
        file,
        hints,
        num_layers,
        lambda: scan.largest_id,
        layer_ids=header.get("layer_ids"),
        num_experts=header.get("num_experts"),
    )
    notes = tuple(f"Field {name!r} is no trace column and was left out." for name in sorted(scan.meta))
    return axes.trace(
        file,
        "jsonl",
        notes,
        top_k=top_k,
        num_tokens=header["num_tokens"] if complete else scan.tokens,
        columns=scan.columns,
        read=read,
    )


def _open(file: TraceFile) -> tuple[dict[str, Any], Iterator[Token]]:
    """Return the header, empty if there is none, and the tokens."""
    first = next(_objects(file), None)
    header = {} if first is None or "format" not in first[1] else read_header(*first)

    def tokens() -> Iterator[Token]:
        objects = _objects(file)
        if header:
            next(objects)
        for place, value in objects:
            yield parse_token(value, place)

    return header, tokens()


def _objects(file: TraceFile) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open() as stream:
        yield from read_records(stream, file.name, ("topk_ids",))


def _check_count(header: dict[str, Any], tokens: int, file: TraceFile) -> None:
    stated = header.get("num_tokens", tokens)
    if stated != tokens:
        raise InputError.of(
            "token_count",
            file.name,
            f"The header says {stated} tokens; there are {tokens}.",
            "Copy or record it again.",
        )


READER = Reader(
    name="jsonl",
    content="one JSON object per token",
    sniff=lambda file: file.head.lstrip().startswith(b"{") and not first_keys(file) & ENGINE_KEYS,
    open=open_jsonl,
)
