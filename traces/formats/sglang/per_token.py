"""SGLang's recorder dumps `per_token`: physical ids of every token by pass and rank, folded to logical ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.batch import Batch
from traces.decoding.bundles import Bundle
from traces.decoding.files import tokens_per_batch
from traces.decoding.torch_file import torch_keys
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.sglang.records import Record, Recording, bundle_keys, open_recording, opened_in_turn
from traces.formats.shared.model_layers import axes_of_rows, moe_rows
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["READER"]

PREFILL, DECODE = 1, 2
MAX_SHARED = 64  # fused shared experts, whose ids go on after the slots
EXTENDED = "records.topk_ids_of_layer"


@dataclass
class _Scan:
    """What a pass over all ids finds.

    `largest` is the largest id, `first_beyond` the first place of one above the slots; `one_each` is False where a list
    has several of those, or none.
    """

    used: npt.NDArray[np.bool_]
    largest: int = -1
    one_each: bool = True
    first_beyond: str = ""
    tokens: int = 0
    padding: int = 0
    top_k: int = 0
    width: int = 0
    positions: bool = True
    modes: set[int | None] = field(default_factory=set)

    def add(self, record: Record, ids: npt.NDArray[Any], slots: int) -> None:
        """Take in the (layers, tokens, width) ids of one record."""
        if ids.size == 0:
            return
        largest = int(ids.max())
        if ids.min() < -1 or largest >= slots + MAX_SHARED:
            raise _out_of_range(record.place, slots)
        there = ids >= 0
        routed = there
        self.largest = max(self.largest, largest)
        if largest >= slots:
            above = ids >= slots
            routed = there & ~above
            self.first_beyond = self.first_beyond or record.place
            self.one_each &= bool((above.sum(axis=2) == there.any(axis=2)).all())
        elif there.any():
            self.one_each = False
        self.used |= there.any(axis=(1, 2))
        self.top_k = max(self.top_k, _width(routed))
        self.width = max(self.width, _width(there))
        padding = ids.shape[1] - int(np.count_nonzero(there.any(axis=(0, 2))))
        self.padding += padding
        self.tokens += ids.shape[1] - padding
        self.positions &= record.positions is not None and len(record.positions) == ids.shape[1]
        self.modes.add(record.mode)


def open_per_token(bundle: Bundle, hints: Hints) -> Trace:
    """Open a recording; all ids are read once, to find MoE layers, top-k and padding."""
    recording = open_recording(bundle, tokens=True)
    slots = recording.files[0].logical.shape[1]
    scan = _Scan(used=np.zeros(recording.num_layers, np.bool_))
    for record, ids in _distinct(recording, copies := Counter[int]()):
        scan.add(record, ids, slots)
    if not scan.tokens:
        raise InputError.of(
            "zero_tokens", bundle.name, "No token chose an expert.", "Record while requests are served."
        )
    asked = hints.beyond_is_none or hints.lenient
    if scan.first_beyond and not asked and not scan.one_each:
        raise _out_of_range(scan.first_beyond, slots)
    fused = bool(scan.first_beyond) and scan.one_each and scan.top_k > 0 and not hints.beyond_is_none
    top_k = scan.top_k if fused else scan.width
    rows, layer_notes = moe_rows(bundle.name, hints, scan.used, certain=True)
    experts = recording.num_experts(rows)
    axes = axes_of_rows(bundle, hints, rows, largest_id=-1, num_experts=experts)
    notes = (*recording.notes, *layer_notes)
    if scan.padding:
        notes = (*notes, f"{scan.padding} rows without any expert, padding of the batch, were left out.")
    notes = (
        *notes,
        *(
            f"{count} passes of rank {rank} have the very tokens of another rank and were left out, as tensor-parallel "
            "ranks record the same ones."
            for rank, count in sorted(copies.items())
        ),
    )
    columns = ["source_rank"]
    if scan.positions:
        columns.append("token_pos")
    if scan.modes <= {PREFILL, DECODE}:
        columns.append("phase")
    tokens_per_batch(1, len(rows) * top_k * 8, bundle.name)
    above = np.full(max(0, scan.largest - slots + 1), -1) if fused else experts + np.arange(scan.largest - slots + 1)

    def read(max_tokens: int) -> Iterator[Batch]:
        step = tokens_per_batch(max_tokens, len(rows) * top_k * 8, bundle.name)
        return _batches(recording, rows, top_k, above, step, columns)

    trace = axes.trace(
        bundle,
        READER.name,
        notes,
        top_k=top_k,
        num_tokens=scan.tokens,
        columns=frozenset(columns),
        read=read,
    )
    what = ""
    if fused:
        shared = f"Id {slots}" if scan.largest == slots else f"Ids {slots}-{scan.largest}"
        what = f"{shared}, above the {slots} physical experts, stands once in every list: a shared expert that is "
        what += f"fused with the routed ones. It was read as none, which leaves {top_k} experts per token."
    return replace(trace, provenance=trace.provenance.of_ranks(recording.ranks).without_beyond(what))


def _width(there: npt.NDArray[np.bool_]) -> int:
    """Return the columns up to the last one with an id, of (layers, tokens, width)."""
    return int(np.flatnonzero(there.any(axis=(0, 1))).max(initial=-1)) + 1


def _out_of_range(place: str, slots: int) -> InputError:
    detail = f"A physical id is not between -1 and {slots - 1}, as the map has {slots}. A fused shared expert would be "
    detail += f"id {slots} once in every list, which is read as none."
    remedy = (
        f"Check the recording; or treat ids from {slots} on as none: `ids_beyond_experts` none, with `num_experts`."
    )
    return InputError.of("id_out_of_range", place, detail, remedy)


def _distinct(recording: Recording, copies: Counter[int]) -> Iterator[tuple[Record, npt.NDArray[np.integer[Any]]]]:
    """Yield the records that are no copies of another rank's in the same pass; `copies` counts those, by rank.

    The first record of a pass is hashed when a second one comes: most dumps have one rank per pass.
    """
    current, first, seen = -1, None, set[bytes]()
    for record, numbers in opened_in_turn(recording):
        assert record.ids is not None
        ids = numbers.array(record.ids)
        if record.order[0] != current:
            current, first, seen = record.order[0], (record, ids), set()
            yield record, ids
            continue
        if first is not None:
            seen.add(_digest(*first))
            first = None
        digest = _digest(record, ids)
        if digest in seen and (ids >= 0).any():
            copies[record.order[1]] += 1
            continue
        seen.add(digest)
        yield record, ids


def _digest(record: Record, ids: npt.NDArray[np.integer[Any]]) -> bytes:
    positions = b"" if record.positions is None else np.ascontiguousarray(record.positions).tobytes()
    return hashlib.sha256(np.ascontiguousarray(ids).tobytes() + positions).digest()


def _batches(
    recording: Recording,
    rows: npt.NDArray[np.int64],
    top_k: int,
    above: npt.NDArray[np.int64],
    step: int,
    columns: list[str],
) -> Iterator[Batch]:
    # Ids above the slots follow them. The last entry stands for -1: that is where NumPy finds it.
    last = np.broadcast_to(np.append(above, -1), (len(rows), len(above) + 1))
    tables = [np.concatenate([file.logical[rows], last], axis=1).astype(np.int16) for file in recording.files]
    start = 0
    for record, ids in _distinct(recording, Counter()):
        physical = ids[rows, :, :top_k]
        there = np.flatnonzero((physical >= 0).any(axis=(0, 2)))
        for first in range(0, len(there), step):
            kept = there[first : first + step]
            chosen = np.empty((len(kept), len(rows), top_k), np.int16)
            for layer, table in enumerate(tables[record.source]):
                chosen[:, layer] = table[physical[layer, kept]]
            extra: dict[str, Any] = {"source_rank": np.full(len(kept), record.order[1], np.int32)}
            if "token_pos" in columns and record.positions is not None:
                extra["token_pos"] = record.positions[kept]
            if "phase" in columns:
                extra["phase"] = np.full(len(kept), int(record.mode == DECODE), np.uint8)
            yield Batch(topk_ids=chosen, rows=np.arange(start, start + len(kept)), **extra)
            start += len(kept)


READER = Reader(
    name="sglang_per_token",
    engine="sglang",
    content="SGLang recorder dumps per_token (.pt, one per rank)",
    sniff=lambda file: EXTENDED in torch_keys(file),
    open=lambda file, hints: open_per_token(Bundle.single(file), hints),
    sniff_bundle=lambda bundle: EXTENDED in bundle_keys(bundle),
    open_bundle=open_per_token,
)
