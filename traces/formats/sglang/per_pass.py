"""SGLang's recorder dumps `per_pass`: counts of physical experts by pass and rank, as loads without token identity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from traces.counts import LoadCounts
from traces.decoding.bundles import Bundle
from traces.decoding.torch_file import torch_keys
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.sglang.loads import fold_load, loads_of
from traces.formats.sglang.records import bundle_keys, open_recording, opened_in_turn
from traces.held_ranks import held_slots
from traces.support.errors import InputError

__all__ = ["READER"]

KEYS = frozenset({"records", "last_physical_to_logical_map"})


def open_per_pass(bundle: Bundle, hints: Hints) -> LoadCounts:
    """Sum the counts of all passes and ranks, and fold them through the map."""
    recording = open_recording(bundle, tokens=False)
    physical = [np.zeros(file.logical.shape, np.int64) for file in recording.files]
    for record, numbers in opened_in_turn(recording):
        assert record.counts is not None
        part = numbers.array(record.counts)
        if part.min(initial=0) < 0:
            raise InputError.of("negative_count", record.place, "A count is negative.", "Check the recording.")
        physical[record.source] += part.astype(np.int64)
    experts = 1 + max(int(file.logical.max()) for file in recording.files)
    load = np.zeros((recording.num_layers, experts), np.float64)
    for file, slots in zip(recording.files, physical, strict=True):
        load += fold_load(slots, file.logical, experts)
    passes = len({record.order[0] for record in recording.records})
    note = f"Counts of {passes} passes were summed over {len(recording.ranks)} ranks."
    counts = loads_of(bundle, hints, READER.name, load, (note, *recording.notes), logical=recording.num_experts)
    held = held_slots(sum(physical[1:], physical[0]), load)
    return replace(counts, provenance=replace(counts.provenance.of_ranks(recording.ranks), held=held))


READER = Reader(
    name="sglang_per_pass",
    engine="sglang",
    content="SGLang recorder dumps per_pass (.pt, one per rank); loads only",
    sniff=lambda file: _is_per_pass(torch_keys(file)),
    open=lambda file, hints: open_per_pass(Bundle.single(file), hints),
    sniff_bundle=lambda bundle: _is_per_pass(bundle_keys(bundle)),
    open_bundle=open_per_pass,
)


def _is_per_pass(keys: frozenset[str]) -> bool:
    return keys >= KEYS and "records.topk_ids_of_layer" not in keys
