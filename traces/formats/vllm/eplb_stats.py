"""vLLM's recorded EPLB statistics: JSON Lines with the load of every physical slot, and the map of that moment.

    {"record_type": "eplb_load_meta", "version": 1, "model": "...", "num_layers": 58, "num_redundant_experts": 32}
    {"record_type": "eplb_load_stats", "version": 1, "step": 7, "expert_load": [[...]], "p2l_map": [[...]]}

Loads are physical: each record is folded to logical experts through its own map, which may change between records.

References
----------
https://github.com/vllm-project/vllm/pull/41141
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.counts import LoadCounts
from traces.decoding.files import TraceFile, guarded
from traces.decoding.int_lists import read_records
from traces.decoding.json_objects import first_keys
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.shared.counts import add_slots, checked_counts
from traces.formats.shared.matrices import MAX_LAYERS
from traces.held_ranks import held_slots
from traces.support.errors import InputError

__all__ = ["READER"]

META, STATS = "eplb_load_meta", "eplb_load_stats"
VERSION = 1


@dataclass
class _Sum:
    """What the records add up to."""

    load: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    meta: dict[str, int] = field(default_factory=dict)
    slots: npt.NDArray[np.int64] | None = None
    physical: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    last_step: int | None = None
    records: int = 0
    idle: int = 0
    maps: int = 0
    sizes: int = 0
    back: int = 0
    ignored: dict[str, int] = field(default_factory=dict)

    def add_meta(self, record: dict[str, Any], place: str) -> None:
        """Keep the sizes that a metadata record states; they must not change."""
        for name in ("num_layers", "num_redundant_experts"):
            if name not in record:
                continue
            value = record[name]
            if type(value) is not int or not 0 <= value < 1 << 31:
                raise InputError.of("header_type", f"{place}/{name}", f"{value!r:.40} is no count.", "Record it again.")
            if name == "num_layers" and self.meta.setdefault(name, value) != value:
                raise InputError.of(
                    "records_differ", f"{place}/{name}", "The model changes.", "Give the recording of one model."
                )
            self.meta[name] = value

    def add(self, record: dict[str, Any], place: str) -> None:
        """Fold the loads of one record."""
        counts = _matrix(record, "expert_load", place).astype(np.float64)
        slots = _matrix(record, "p2l_map", place).astype(np.int64)
        if counts.shape != slots.shape:
            raise InputError.of(
                "load_shape",
                place,
                f"expert_load has shape {counts.shape}, p2l_map {slots.shape}.",
                "Both have one entry per layer and physical slot.",
            )
        layers = self.meta.get("num_layers", len(self.load) or len(counts))
        if len(counts) != layers or (self.records and len(counts) != len(self.load)):
            raise InputError.of(
                "layer_missing",
                place,
                f"There are {len(counts)} layers instead of {layers}.",
                "Give the recording of one model.",
            )
        _check_complete(slots, self.meta.get("num_redundant_experts"), place)
        if not counts.any():
            self.idle += 1
        if self.slots is not None:
            self.sizes += self.slots.shape != slots.shape
            self.maps += self.slots.shape == slots.shape and bool((self.slots != slots).any())
        self.load, self.slots = add_slots(self.load, slots, counts, place), slots
        # Since the number of slots changed last.
        self.physical = self.physical + counts if self.physical.shape == counts.shape else counts
        step = record.get("step")
        if type(step) is not int:
            raise InputError.of("value_type", f"{place}/step", f"{step!r:.40} is no step.", "Record it again.")
        self.back += self.last_step is not None and step <= self.last_step
        self.last_step, self.records = step, self.records + 1

    def notes(self) -> tuple[str, ...]:
        """Say what was noticed on the way."""
        ignored = [f"{count} records of type {kind!r} were left out." for kind, count in sorted(self.ignored.items())]
        told = [
            (self.idle, f"{self.idle} of {self.records} records hold no tokens (idle or warm-up steps)."),
            (self.maps, f"The expert map changes {self.maps} times; each record is folded through its own."),
            (self.sizes, f"The number of physical slots changes {self.sizes} times."),
            (self.back, f"Steps do not rise {self.back} times (restarts, or records that repeat); all are counted."),
        ]
        return (*(text for count, text in told if count), *ignored)


def open_eplb_stats(file: TraceFile, hints: Hints) -> LoadCounts:
    """Add up all records, line by line."""
    total = _Sum()
    with file.open() as stream:
        for place, record in read_records(stream, file.name, ("expert_load", "p2l_map")):
            kind = record.get("record_type")
            if kind in (META, STATS) and record.get("version") != VERSION:
                raise InputError.of(
                    "version_unknown",
                    f"{place}/version",
                    f"Expected {VERSION}; got {record.get('version')!r:.40}.",
                    "Convert it.",
                )
            if kind == STATS:
                total.add(record, place)
            elif kind == META:
                total.add_meta(record, place)
            else:
                name = kind[:40] if isinstance(kind, str) else "?"
                total.ignored[name] = total.ignored.get(name, 0) + 1
                if len(total.ignored) > MAX_LAYERS:
                    raise InputError.of("record_types", place, "Too many types of records.", "Check the file.")
    if not total.records:
        raise InputError.of("zero_tokens", file.name, f"There is no {STATS} record.", "Check the recording.")
    # The map names every expert, so the largest id is exact.
    axes = Axes.settle(file, hints, len(total.load), lambda: -1, num_experts=total.load.shape[1])
    counts = checked_counts(
        file.name, "vllm_eplb_stats", axes, total.load, f"sha256:{file.sha256()}", notes=total.notes()
    )
    return replace(counts, provenance=replace(counts.provenance, held=held_slots(total.physical, total.load)))


def _matrix(record: dict[str, Any], name: str, place: str) -> npt.NDArray[Any]:
    """Return a list of lists as an array (layers, slots) of integers."""
    rows = record.get(name)
    if isinstance(rows, np.ndarray) and len(rows) <= MAX_LAYERS:
        return rows
    if (
        not isinstance(rows, list)
        or not 1 <= len(rows) <= MAX_LAYERS
        or not all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows)
        or not rows[0]
    ):
        raise InputError.of(
            "load_shape", f"{place}/{name}", "Expected one list per layer, of equal lengths.", "Record it again."
        )
    if any(set(map(type, row)) != {int} for row in rows):
        raise InputError.of("value_type", f"{place}/{name}", "Expected integers.", "Record it again.")
    with guarded(f"{place}/{name}"):  # beyond 64 bits
        return np.array(rows, dtype=np.int64)


def _check_complete(slots: npt.NDArray[np.int64], redundant: int | None, place: str) -> None:
    """Every logical expert has a slot in every layer; else the map is not what the engine used."""
    experts = int(slots.max()) + 1
    if redundant is not None and slots.shape[1] - redundant != experts:
        raise InputError.of(
            "num_experts_differ",
            f"{place}/p2l_map",
            f"{slots.shape[1]} slots with {redundant} redundant ones hold {experts} experts.",
            "The metadata and the maps are of different runs.",
        )
    for layer, row in enumerate(slots):
        held = np.unique(row[row >= 0])
        if len(held) != experts:
            lacking = sorted(set(range(min(experts, 1 << 16))) - set(held.tolist()))[:8]
            raise InputError.of(
                "expert_missing",
                f"{place}/p2l_map/{layer}",
                f"No slot holds expert(s) {lacking} of {experts}.",
                "Every logical expert has a slot; record the map again.",
            )


READER = Reader(
    name="vllm_eplb_stats",
    engine="vllm",
    content="vLLM's recorded EPLB statistics (JSON Lines of eplb_load_stats); loads only",
    sniff=lambda file: not first_keys(file).isdisjoint(("record_type", "expert_load")),
    open=open_eplb_stats,
)
