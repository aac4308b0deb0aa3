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
from traces.decoding.torch_file import open_torch, torch_keys
from traces.decoding.torch_tensors import Tensor
from traces.formats.reader import MAX_LAYERS, Hints, Reader
from traces.formats.sglang.loads import loads_of
from traces.formats.sglang.records import bundle_keys
from traces.rules import MAX_EXPERTS
from traces.support.errors import InputError

__all__ = ["READER"]


def open_stat(bundle: Bundle, hints: Hints) -> LoadCounts:
    """Sum the counts over all steps. Files of several ranks hold the same counts, so one of them is used."""
    ranks: dict[int, str] = {}
    first: npt.NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()
    full: int | None = None
    for file in bundle.files:
        rank, load, found, steps = _read(file)
        if rank in ranks:
            detail = f"Rank {rank} is in {ranks[rank]} already: these are dumps of different times."
            raise InputError.of("duplicate_rank", file.name, detail, "Load the dumps of one time.")
        ranks[rank] = file.name
        if first is None:
            first, notes, full = load, found, steps
        elif load.shape != first.shape or not np.array_equal(load, first):
            detail = f"The counts differ from those of {bundle.files[0].name}, though they are summed over ranks."
            raise InputError.of("ranks_differ", file.name, detail, "Load the dumps of one recording.")
    assert first is not None
    if len(ranks) > 1:
        notes = (*notes, f"The files of {len(ranks)} ranks hold the same sums; they were taken once.")
    counts = loads_of(bundle, hints, READER.name, first, notes)
    return replace(counts, provenance=replace(counts.provenance, full_buffer=full))


def _read(file: TraceFile) -> tuple[int, npt.NDArray[np.float64], tuple[str, ...], int | None]:
    torch = open_torch(file)
    value: Any = torch.value
    counts = value.get("logical_count") if type(value) is dict else None
    rank = value.get("rank", 0) if type(value) is dict else None
    place = f"{file.name}#/logical_count"
    if type(counts) is not Tensor or len(counts.shape) != 3 or counts.kind not in "iuf" or type(rank) is not int:
        raise _schema(place, "expected counts of shape (steps, layers, experts)")
    steps, layers, experts = counts.shape
    if not (1 <= layers <= MAX_LAYERS and 1 <= experts <= MAX_EXPERTS and layers * experts <= 1 << 24):
        raise _schema(place, f"{layers} layers of {experts} experts")
    total = np.zeros((layers, experts), np.float64)
    used = 0
    with torch.numbers() as numbers:
        for part in numbers.rows(counts):
            if part.size and not part.min() >= 0:
                raise InputError.of("load_not_finite", place, "A count is negative or NaN.", "Check the recording.")
            used += int(np.count_nonzero(part.any(axis=(1, 2))))
            total += part.sum(axis=0, dtype=np.float64)
    notes = (f"{steps - used} of {steps} steps of the buffer were not used.",) if used < steps else ()
    return rank, total, notes, steps if used == steps else None


def _schema(place: str, what: str) -> InputError:
    return InputError.of(
        "record_schema", place, f"This is no dump as SGLang writes it: {what}.", "Give the file as it was dumped."
    )


READER = Reader(
    name="sglang_stat",
    engine="sglang",
    content="SGLang recorder dump stat or stat_approx (.pt); loads only",
    sniff=lambda file: "logical_count" in torch_keys(file),
    open=lambda file, hints: open_stat(Bundle.single(file), hints),
    sniff_bundle=lambda bundle: "logical_count" in bundle_keys(bundle),
    open_bundle=open_stat,
)
