"""Writes JSON Lines with a complete header, so that reading needs no scan."""

from __future__ import annotations

import json
from typing import IO, Any

import numpy as np

from traces.batch import Batch
from traces.formats.shared.json_rows import FORMAT, VERSION
from traces.formats.writers.base import Survey
from traces.trace import Trace

__all__ = ["write"]

BATCH_TOKENS = 1024  # held as Python lists


def write(trace: Trace, survey: Survey, file: IO[bytes], compress: bool) -> None:
    """Write a header and one line per token."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "num_experts": trace.num_experts,
        "top_k": trace.top_k,
        "num_tokens": survey.tokens,
        "layer_ids": trace.layer_ids.tolist(),
    }
    file.write(_line(header))
    for batch in trace.read(BATCH_TOKENS):
        names = ("topk_ids", *survey.columns)
        lists = [_values(batch, name).tolist() for name in names]
        for row in zip(*lists, strict=True):
            file.write(_line(dict(zip(names, row, strict=True))))


def _values(batch: Batch, name: str) -> Any:
    values = np.asarray(getattr(batch, name))
    if name == "gate_weights":
        # JSON has no NaN; the check of the trace leaves only those of missing entries.
        values = np.where(np.isfinite(values), values, 0).astype(np.float32)
    return values


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\n"
