"""Shards written anew, part by part: no tensor is ever in memory.

A listed expert moves by its name in the header, and its bytes stay where they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from placement.checkpoint.changes import Change
from placement.checkpoint.files import Shard, Tensor
from traces import InputError

__all__ = ["rewrite"]

AT_ONCE = 8 << 20  # bytes
ALIGNED = 8  # bytes: what the length of a header is a multiple of
INTEGERS = {"I64": "<i8", "I32": "<i4"}


def rewrite(shard: Shard, target: Path, changes: Mapping[str, Change]) -> None:
    """Write one shard with its changes.

    Parameters
    ----------
    shard : Shard
    target : Path
        File to write.
    changes : mapping of str to Change
        By the tensors' old names.

    Raises
    ------
    InputError
        If the file ends early, or a table holds another number than an expert's.
    """
    header: dict[str, object] = {} if shard.metadata is None else {"__metadata__": shard.metadata}
    for name, tensor in shard.tensors.items():
        entry = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [tensor.begin, tensor.end]}
        header[changes[name].name if name in changes else name] = entry
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    with shard.path.open("rb") as source, target.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in shard.tensors.items():
            _tensor(shard, name, tensor, changes.get(name), source, out)


def _tensor(shard: Shard, name: str, tensor: Tensor, change: Change | None, source: IO[bytes], out: IO[bytes]) -> None:
    start, size = shard.start + tensor.begin, tensor.end - tensor.begin
    if change is not None and change.numbers is not None:
        _renamed_values(f"{shard.path}#{name}", tensor, change, start, source, out)
    elif change is not None and change.order is not None:
        part = size // change.parts
        for old in change.order.tolist():
            _copy(source, out, start + old * part, part)
        done = part * len(change.order)
        _copy(source, out, start + done, size - done)
    else:
        _copy(source, out, start, size)


def _copy(source: IO[bytes], out: IO[bytes], start: int, size: int) -> None:
    source.seek(start)
    while size:
        data = source.read(min(size, AT_ONCE))
        if not data:
            raise InputError.of("damaged_file", source.name, "The file is cut off.", "Copy the checkpoint again.")
        out.write(data)
        size -= len(data)


def _renamed_values(place: str, tensor: Tensor, change: Change, start: int, source: IO[bytes], out: IO[bytes]) -> None:
    assert change.numbers is not None
    kind = np.dtype(INTEGERS[tensor.dtype])
    source.seek(start)
    left = (tensor.end - tensor.begin) // kind.itemsize
    while left:
        values = np.frombuffer(source.read(min(left, AT_ONCE // kind.itemsize) * kind.itemsize), dtype=kind)
        wrong = (values < 0) | (values >= len(change.numbers))
        if wrong.any() or not values.size:
            detail = f"It holds {values[wrong][:1].tolist()}, which is no expert of {len(change.numbers)}."
            raise InputError.of("expert_out_of_range", place, detail, "Check that the checkpoint is this model's.")
        out.write(change.numbers[values].astype(kind).tobytes())
        left -= values.size
