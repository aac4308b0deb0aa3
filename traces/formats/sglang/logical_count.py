"""Counts of logical experts as JSON: ``{"logical_count": [[...], ...]}``, which SGLang publishes, and loads.

Shape (layers, experts), or (steps, layers, experts), over which they are summed. The rows are all layers of the model;
where a model says that there are as many MoE layers, they are those. kt-kernel's ``activation_freq`` is the same under
another key, with frequencies in place of counts.

References
----------
SGLang 0.5.23, ``--init-expert-location``: ``sglang/srt/eplb/expert_location.py``, `init_by_eplb`. kt-kernel 0.7.2,
``kt_kernel/experts_base.py``, `generate_gpu_experts_masks`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.counts import LoadCounts
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile
from traces.decoding.json_objects import COUNT_KEYS, first_keys
from traces.decoding.nested_numbers import numbers_under
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.sglang.loads import loads_of
from traces.formats.shared.matrices import MAX_LAYERS
from traces.support.errors import InputError

__all__ = ["READER"]


def sniff(file: TraceFile) -> bool:
    """Recognise an object with one of the keys."""
    return file.head.lstrip()[:1] == b"{" and bool(first_keys(file) & COUNT_KEYS)


def open_logical_count(file: TraceFile, hints: Hints) -> LoadCounts:
    """Sum the counts over all steps, in constant memory."""
    rows: list[npt.NDArray[np.float64]] = []
    total: npt.NDArray[np.float64] | None = None
    steps, filled, deep, last = 0, 0, 0, False
    place = f"{file.name}#/logical_count"
    with file.open() as stream:
        for depth, row in numbers_under(stream, file.name, tuple(sorted(COUNT_KEYS))):
            if row is not None:
                deep = deep or depth
                if depth != deep or deep < 2 or len(row) != len(rows[0] if rows else row):
                    raise _uneven(place)
                if len(rows) >= MAX_LAYERS or len(row) > checks.MAX_EXPERTS:
                    detail = f"More than {MAX_LAYERS} layers, or {len(row)} experts."
                    raise InputError.of("too_large", place, detail, "Check the order of the axes.")
                if not np.isfinite(row).all() or row.min() < 0:
                    raise InputError.of("load_not_finite", place, "A count is negative or NaN.", "Correct the counts.")
                rows.append(row)
            elif rows and depth == (1 if deep == 3 else 0):
                step = np.stack(rows)
                if total is not None and (deep == 2 or step.shape != total.shape):
                    raise _uneven(place)
                total = step if total is None else total + step
                last = bool(step.any())
                steps, filled, rows = steps + 1, filled + last, []
            elif depth or deep != 3 or rows:  # an empty list
                raise _uneven(place)
    if total is None:
        raise InputError.of("zero_tokens", place, "There is no row.", "Give one row per layer.")
    notes = (f"Counts of {steps} steps were summed.",) if steps > 1 else ()
    if filled < steps:
        notes = (*notes, f"{steps - filled} of {steps} steps hold no counts.")
    counts = loads_of(Bundle.single(file), hints, READER.name, total, notes)
    full = steps if steps > 1 and last else None  # idle passes are empty too, but a buffer is filled from its start on
    return replace(counts, provenance=replace(counts.provenance, full_buffer=full))


def _uneven(place: str) -> InputError:
    detail = "The lists have several lengths or depths."
    return InputError.of("load_shape", place, detail, "Give (layers, experts) or (steps, layers, experts).")


READER = Reader(
    name="logical_count",
    content='counts of logical experts as JSON, {"logical_count": ...} or {"activation_freq": ...}; loads only',
    sniff=sniff,
    open=open_logical_count,
    also_named=("sglang_logical_count", "activation_freq", "kt_kernel"),
)
