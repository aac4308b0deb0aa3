"""Steps of Megatron router traces: the records of one rank file, and the tokens that they join to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.decoding.files import TraceFile, guarded
from traces.decoding.int_lists import read_records
from traces.formats.shared.matrices import MAX_LAYERS
from traces.support.errors import InputError

__all__ = ["RankFile", "Step", "joined", "steps_of"]

STEP_BYTES = 256 << 20  # ids of one step that are held at once
STAGE = "pre_dispatch"
Ids = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Step:
    """The decoder records of one step of one rank.

    Attributes
    ----------
    number, rank : int
    place : str
        Of the first record.
    parts : dict of int to list of (T, K) int32
        By layer: one array per micro-batch, in the order of the file.
    """

    number: int
    rank: int
    place: str
    parts: dict[int, list[Ids]]

    @property
    def tokens(self) -> int:
        """Tokens, if the step is consistent."""
        return sum(map(len, next(iter(self.parts.values()))))

    @property
    def consistent(self) -> bool:
        """Whether all layers have the same micro-batches."""
        sizes = [[len(part) for part in parts] for parts in self.parts.values()]
        return all(size == sizes[0] for size in sizes)


@dataclass
class RankFile:
    """What a pass over a file counts beside its steps."""

    mtp: int = 0
    other_stages: int = 0
    top_k: int = 0
    ranks: Counter[int] = field(default_factory=Counter)


def steps_of(file: TraceFile, found: RankFile) -> Iterator[Step]:
    """Yield the steps of a rank file, which stand one after the other.

    Parameters
    ----------
    file : TraceFile
    found : RankFile
        Filled on the way.

    Raises
    ------
    InputError
        At a record that breaks the schema, a step that goes on after another one, another rank or top-k, or a step of
        more than 256 MiB of ids.
    """
    step: Step | None = None
    size = 0
    with file.open() as stream:
        for place, record in read_records(stream, file.name, ("top_indices",)):
            if record.get("stage", STAGE) != STAGE:
                found.other_stages += 1
                continue
            block = record.get("block", "decoder")
            if block == "mtp" or "mtp_idx" in record:
                found.mtp += 1
                continue
            if block != "decoder":
                raise InputError.of("block", f"{place}/block", f"Unknown block {block!r:.40}.", "Leave it out.")
            number, layer, rank = (_count(record, name, place) for name in ("step", "layer", "rank"))
            ids = _ids(record, place)
            found.top_k = found.top_k or ids.shape[1]
            found.ranks[rank] += 1
            if ids.shape[1] != found.top_k or len(found.ranks) > 1:
                raise InputError.of(
                    "records_differ", place, "Another rank or top-k than before.", "Give one file per rank."
                )
            if step is not None and number < step.number:
                raise InputError.of(
                    "step_order", place, f"Step {number} comes after step {step.number}.", "Give one run per file."
                )
            if step is None or number > step.number:
                if step is not None:
                    yield step
                step, size = Step(number=number, rank=rank, place=place, parts={}), 0
            size += ids.nbytes
            if size > STEP_BYTES or len(step.parts) > MAX_LAYERS:
                raise InputError.of("step_too_large", place, f"Step {number} is too large.", "Record smaller steps.")
            step.parts.setdefault(layer, []).append(ids)
    if step is not None:
        yield step


def joined(step: Step, layers: list[int]) -> Iterator[Ids]:
    """Yield the micro-batches (T, L, K) of a complete step; nothing if a layer lacks tokens.

    Raises
    ------
    InputError
        If a micro-batch is there twice: the file was appended to itself, or activations were computed again.
    """
    if not step.consistent or sorted(step.parts) != layers:
        return
    earlier: set[bytes] = set()
    for parts in zip(*(step.parts[layer] for layer in layers), strict=True):
        whole = np.stack(parts, axis=1)
        content = whole.tobytes()
        if len(whole) and content in earlier:
            raise InputError.of(
                "duplicate_record",
                step.place,
                f"Step {step.number} of rank {step.rank} has the same tokens twice.",
                "Record without activation recomputation, and a run into a folder of its own.",
            )
        if len(step.parts[layers[0]]) > 1:
            earlier.add(content)
        yield whole


def _count(record: dict[str, Any], name: str, place: str) -> int:
    value = record.get(name)
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise InputError.of("value_type", f"{place}/{name}", f"{value!r:.40} is no index.", "Record it again.")
    return value


def _ids(record: dict[str, Any], place: str) -> Ids:
    tokens, top_k, rows = _count(record, "num_tokens", place), _count(record, "topk", place), record.get("top_indices")
    pointer = f"{place}/top_indices"
    if isinstance(rows, np.ndarray):
        if rows.shape == (tokens, top_k) and -(1 << 31) <= rows.min() <= rows.max() < 1 << 31:
            return rows.astype(np.int32)
        rows = rows.tolist()  # so that one place says what is wrong
    if (
        top_k < 1
        or not isinstance(rows, list)
        or len(rows) != tokens
        or not all(isinstance(row, list) and len(row) == top_k for row in rows)
    ):
        raise InputError.of("topk_ids_shape", pointer, f"Expected {tokens} lists of {top_k} ids.", "Record it again.")
    if not set(map(type, chain.from_iterable(rows))) <= {int}:
        raise InputError.of("value_type", pointer, "Expected integers.", "Record it again.")
    with guarded(pointer):
        return np.array(rows, dtype=np.int32).reshape(tokens, top_k)
