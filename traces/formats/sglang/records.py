"""SGLang's recorder files of records, one per rank: forward passes, with ids and counts of physical experts.

References
----------
SGLang 0.5.23, ``--expert-distribution-recorder-mode per_pass`` and ``per_token``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.decoding.bundles import Bundle
from traces.decoding.torch_file import TorchFile, is_torch, open_torch, torch_keys
from traces.decoding.torch_tensors import Tensor
from traces.rules import MAX_EXPERTS
from traces.support.errors import InputError, Violations

__all__ = ["RankFile", "Record", "Recording", "bundle_keys", "open_recording", "opened_in_turn"]

OPEN_FILES = 128
MAX_SLOTS = 1 << 20
MAX_PASS = 1 << 62


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """A forward pass on a rank.

    Attributes
    ----------
    order : (int, int, str)
        Pass, rank and gatherer: passes are split where batches overlap.
    source : int
        Number of the file in `Recording.files`.
    place : str
    counts : Tensor or None
        (layers of the model, P) tokens per physical expert.
    ids : Tensor or None
        (layers of the model, tokens, at most K) physical ids, -1 where there is none.
    positions : (tokens,) int64 or None
    mode : int or None
        1 prefill, 2 decode.
    """

    order: tuple[int, int, str]
    source: int
    place: str
    counts: Tensor | None
    ids: Tensor | None
    positions: npt.NDArray[np.int64] | None
    mode: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class RankFile:
    """One file: what reads its tensors, and its map (layers of the model, P) from physical to logical experts."""

    torch: TorchFile
    logical: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """All files of a recording, their records by pass and rank, and what is to be said about them."""

    files: tuple[RankFile, ...]
    records: tuple[Record, ...]
    notes: tuple[str, ...]

    @property
    def num_layers(self) -> int:
        """Layers of the model."""
        return len(self.files[0].logical)

    @property
    def ranks(self) -> frozenset[int]:
        """Ranks that have records."""
        return frozenset(record.order[1] for record in self.records)

    def num_experts(self, rows: npt.NDArray[np.int64]) -> int:
        """Logical experts: all are in the map of each MoE layer."""
        return 1 + max(int(file.logical[rows].max()) for file in self.files)


def bundle_keys(bundle: Bundle) -> frozenset[str]:
    """Return the keys of the first file of `torch.save` in a bundle, for sniffing."""
    first = next((file for file in bundle.files if is_torch(file)), None)
    return frozenset() if first is None else torch_keys(first)


def open_recording(bundle: Bundle, *, tokens: bool) -> Recording:
    """Read the records of all files, without the numbers of their tensors.

    Parameters
    ----------
    bundle : Bundle
    tokens : bool
        Whether ids of tokens are needed, or counts.

    Raises
    ------
    InputError
        If a file is of another schema, files don't go together, or a pass of a rank is there twice.
    """
    files: list[RankFile] = []
    records: list[Record] = []
    seen: dict[tuple[int, int, str], str] = {}
    found = Violations()
    for number, file in enumerate(bundle.files):
        torch = open_torch(file)
        value = torch.value
        if type(value) is not dict or type(value.get("records")) is not list:
            raise _schema(file.name, "there is no list of records")
        logical = _map(torch, value.get("last_physical_to_logical_map"))
        if files and logical.shape != files[0].logical.shape:
            detail = f"The map has shape {logical.shape}, that of {bundle.files[0].name} {files[0].logical.shape}."
            raise InputError.of("ranks_differ", file.name, detail, "Keep recordings of different set-ups apart.")
        files.append(RankFile(torch=TorchFile(file=file, value=None), logical=logical))
        for index, fields in enumerate(value["records"]):
            record = _record(fields, number, f"{file.name}#/records/{index}", logical.shape, tokens=tokens)
            if record.order in seen and len(found.found) < 5:
                found.add(
                    "duplicate_pass",
                    record.place,
                    f"Pass {record.order[0]} of rank {record.order[1]} is at {seen[record.order]} already.",
                    "Load every rank's file of one recording, and each once.",
                )
            seen[record.order] = record.place
            records.append(record)
    found.raise_if_any()
    if not records:
        raise InputError.of("zero_tokens", bundle.name, "There are no records.", "Record while requests are served.")
    records.sort(key=lambda record: record.order)
    return Recording(files=tuple(files), records=tuple(records), notes=_notes(files, records))


def _record(fields: Any, source: int, place: str, shape: tuple[int, ...], *, tokens: bool) -> Record:
    if type(fields) is not dict:
        raise _schema(place, "a record is no dictionary")
    number, rank, key = fields.get("forward_pass_id"), fields.get("rank"), fields.get("gatherer_key", "primary")
    if type(number) is not int or type(rank) is not int or not (0 <= number < MAX_PASS and 0 <= rank < 1 << 30):
        raise _schema(place, "forward_pass_id and rank must be counts")
    if type(key) is not str:
        raise _schema(place, "gatherer_key must be text")
    counts, ids = fields.get("global_physical_count"), fields.get("topk_ids_of_layer")
    if tokens:
        counts = None
        if type(ids) is not Tensor or len(ids.shape) != 3 or ids.kind not in "iu" or ids.shape[0] != shape[0]:
            raise _schema(place, f"topk_ids_of_layer must be integers ({shape[0]} layers, tokens, top-k)")
    else:
        ids = None
        if type(counts) is not Tensor or counts.shape != shape or counts.kind not in "iu":
            raise _schema(place, f"global_physical_count must be integers of shape {shape}, that of the map")
    mode = fields.get("forward_mode")
    return Record(
        order=(number, rank, key[:40]),
        source=source,
        place=place,
        counts=counts,
        ids=ids,
        positions=_integers(fields.get("positions")) if tokens else None,
        mode=mode if type(mode) is int else None,
    )


def _integers(values: Any) -> npt.NDArray[np.int64] | None:
    """Return a list of positions; None for what is no such list, tensors included, as positions are not needed."""
    if type(values) is not list or not set(map(type, values)) <= {int}:
        return None
    if values and not 0 <= min(values) <= max(values) < 1 << 62:
        return None
    return np.array(values, dtype=np.int64)


def _map(torch: TorchFile, tensor: Any) -> npt.NDArray[np.int64]:
    place = f"{torch.file.name}#/last_physical_to_logical_map"
    if (
        type(tensor) is not Tensor
        or len(tensor.shape) != 2
        or tensor.kind not in "iu"
        or 0 in tensor.shape
        or tensor.shape[1] > MAX_SLOTS
    ):
        raise _schema(place, "expected integers (layers, physical experts)")
    with torch.numbers() as numbers:
        logical = numbers.array(tensor).astype(np.int64)
    if logical.min() < 0 or logical.max() >= MAX_EXPERTS:
        raise _schema(place, f"logical experts must be between 0 and {MAX_EXPERTS - 1}")
    return logical


def _notes(files: list[RankFile], records: list[Record]) -> tuple[str, ...]:
    notes = ["Physical experts were folded through the map at the end; a rebalance during recording would not show."]
    differing = sum(not np.array_equal(file.logical, files[0].logical) for file in files)
    if differing:
        notes.append(
            f"The map of {differing} files differs from that of the first: it changed while recording. Each file was "
            "folded through its own."
        )
    ranks = {record.order[1] for record in records}
    passes: dict[int, set[int]] = defaultdict(set)
    for record in records:
        passes[record.order[0]].add(record.order[1])
    lacking = sum(there != ranks for there in passes.values())
    if lacking:
        notes.append(f"{lacking} of {len(passes)} passes are not there for all of the {len(ranks)} ranks.")
    return tuple(notes)


def _schema(place: str, what: str) -> InputError:
    return InputError.of(
        "record_schema",
        place,
        f"This is no recording as SGLang writes it: {what}.",
        "Give the files as they were dumped.",
    )


def opened_in_turn(recording: Recording) -> Iterator[tuple[Record, Any]]:
    """Yield every record with what reads its tensors; few files are open at once."""
    readers: dict[int, Any] = {}
    with ExitStack() as stack:
        for record in recording.records:
            if record.source not in readers:
                if len(readers) >= OPEN_FILES:
                    stack.close()
                    readers.clear()
                readers[record.source] = stack.enter_context(recording.files[record.source].torch.numbers())
            yield record, readers[record.source]
