"""SGLang's recorder dumps `stat` and `stat_approx`: logical counts by step and layer, summed over ranks already.

References
----------
SGLang 0.5.23, ``--expert-distribution-recorder-mode stat``. The two modes write the same file, so it can't be told that
counts are approximate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.counts import LoadCounts
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile
from traces.decoding.json_objects import COUNT_KEYS
from traces.decoding.torch_file import open_torch, torch_keys
from traces.decoding.torch_tensors import Tensor
from traces.formats.axes import MAX_LAYERS
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.sglang.loads import loads_of
from traces.formats.sglang.records import bundle_keys
from traces.formats.shared.dumps import merged_dumps
from traces.rules import MAX_EXPERTS
from traces.support.errors import InputError

__all__ = ["READER"]


def open_stat(bundle: Bundle, hints: Hints) -> LoadCounts:
    """Sum the counts over all steps. Files of several ranks hold the same counts, those of a rank are dumps over time.

    The recorder's buffer goes round, so that the counts of a dump may be in the next one too: `merged_dumps` tells.
    """
    by_rank: dict[int, list[int]] = {}
    for number, file in enumerate(bundle.files):
        by_rank.setdefault(_rank(open_torch(file).value, file.name), []).append(number)
    first = by_rank[min(by_rank)]
    if len(first) == 1 and len(by_rank) == len(bundle.files):
        return _of_ranks(bundle, hints)
    if len(first) == len(bundle.files):
        return merged_dumps(bundle, lambda file: _of_ranks(Bundle.single(file), hints))
    kept = replace(
        bundle,
        files=tuple(bundle.files[number] for number in first),
        members=tuple(bundle.members[number] for number in first),
    )
    merged = open_stat(kept, hints)
    note = f"The files of {len(by_rank)} ranks hold the same sums; those of rank {min(by_rank)} were taken."
    return replace(merged, provenance=merged.provenance.noting(note))


def _of_ranks(bundle: Bundle, hints: Hints) -> LoadCounts:
    """Return the counts of one time, which the files of all ranks hold."""
    first: npt.NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()
    full: int | None = None
    for file in bundle.files:
        load, found, steps = _read(file)
        if first is None:
            first, notes, full = load, found, steps
        elif load.shape != first.shape or not np.array_equal(load, first):
            detail = f"The counts differ from those of {bundle.files[0].name}, though they are summed over ranks."
            raise InputError.of("ranks_differ", file.name, detail, "Load the dumps of one recording.")
    assert first is not None
    if len(bundle.files) > 1:
        notes = (*notes, f"The files of {len(bundle.files)} ranks hold the same sums; they were taken once.")
    counts = loads_of(bundle, hints, READER.name, first, notes)
    return replace(counts, provenance=replace(counts.provenance, full_buffer=full))


def _rank(value: Any, name: str) -> int:
    rank = value.get("rank", 0) if type(value) is dict else 0
    if type(rank) is not int:
        raise _schema(f"{name}#/rank", "rank is no number")
    return rank


def _read(file: TraceFile) -> tuple[npt.NDArray[np.float64], tuple[str, ...], int | None]:
    torch = open_torch(file)
    value: Any = torch.value
    key = "activation_freq" if type(value) is dict and "logical_count" not in value else "logical_count"
    counts = value.get(key) if type(value) is dict else None
    place = f"{file.name}#/{key}"
    if type(counts) is not Tensor or len(counts.shape) not in (2, 3) or counts.kind not in "iuf":
        raise _schema(place, "expected counts of shape (steps, layers, experts) or (layers, experts)")
    *_, layers, experts = counts.shape
    steps = counts.shape[0] if len(counts.shape) == 3 else 1
    if not (1 <= layers <= MAX_LAYERS and 1 <= experts <= MAX_EXPERTS and layers * experts <= 1 << 24):
        raise _schema(place, f"{layers} layers of {experts} experts")
    total = np.zeros((layers, experts), np.float64)
    used, last = 0, False
    with torch.numbers() as numbers:
        for rows in numbers.rows(counts) if len(counts.shape) == 3 else [numbers.array(counts)]:
            part = rows.reshape(-1, layers, experts)
            if part.size and not part.min() >= 0:
                raise InputError.of("load_not_finite", place, "A count is negative or NaN.", "Check the recording.")
            used += int(np.count_nonzero(part.any(axis=(1, 2))))
            last = bool(part[-1:].any())  # idle passes are empty too, but a buffer is filled from its start on
            total += part.sum(axis=0, dtype=np.float64)
    notes = (f"{steps - used} of {steps} steps of the buffer were not used, or idle.",) if used < steps else ()
    return total, notes, steps if last and len(counts.shape) == 3 else None


def _schema(place: str, what: str) -> InputError:
    return InputError.of(
        "record_schema", place, f"This is no dump as SGLang writes it: {what}.", "Give the file as it was dumped."
    )


READER = Reader(
    name="sglang_stat",
    engine="sglang",
    content='SGLang recorder dump stat or stat_approx, or counts as {"logical_count": ...} (.pt); loads only',
    sniff=lambda file: bool(COUNT_KEYS & torch_keys(file)),
    open=lambda file, hints: open_stat(Bundle.single(file), hints),
    sniff_bundle=lambda bundle: bool(COUNT_KEYS & bundle_keys(bundle)),
    open_bundle=open_stat,
)
