"""JSON objects one after the other, whether they are lines, a list, or a single one over many lines.

Whole responses of engines are large, and a file of them larger; so objects are cut out by their braces and parsed one
at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Any

from traces.decoding.files import TraceFile, guarded
from traces.decoding.int_lists import parse_arrays
from traces.decoding.json_lines import parse_object
from traces.decoding.object_scan import MAX_DEPTH, MORE_AFTER_LIST, NO_OBJECT, TOO_DEEP, ObjectScan
from traces.support.errors import InputError

__all__ = [
    "ANSWER_KEYS",
    "COUNT_KEYS",
    "ENGINE_KEYS",
    "OBJECT_BYTES",
    "first_keys",
    "split_blocks",
    "split_objects",
    "split_with",
]

# Top-level keys by which engines' JSON is told from our own JSON Lines; a reader of another schema adds its own.
ANSWER_KEYS = frozenset({"choices", "meta_info", "sgl_ext", "sglext", "nvext", "routed_experts"})
COUNT_KEYS = frozenset({"logical_count", "activation_freq"})  # of matrices of counts
ENGINE_KEYS = ANSWER_KEYS | COUNT_KEYS | {"record_type", "expert_load", "top_indices", "num_entries", "tpe"}
COUNTS = re.compile(rb'"(logical_count|activation_freq)"\s*:\s*\[\s*\[')
OBJECT_BYTES = 128 << 20
CHUNK_BYTES = 1 << 20
FAULTS = {
    TOO_DEEP: f"Nested more than {MAX_DEPTH} deep.",
    MORE_AFTER_LIST: "There is more after the end of the list.",
    NO_OBJECT: "Expected an object.",
}


def split_objects(stream: IO[bytes], name: str, limit: int = OBJECT_BYTES) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a file with the place of each, for errors.

    Accepts an object, a list of objects, or objects one after the other, such as JSON Lines.

    Parameters
    ----------
    stream : binary file
    name : str
        What places start with.
    limit : int
        Bytes of the largest object.

    Raises
    ------
    InputError
        At what is no object, is not strict JSON (NaN, repeated keys), or is too large.
    """
    for number, data in enumerate(_pieces(stream, name, limit), start=1):
        place = f"{name}#object {number}"
        yield place, parse_object(data, place)


def split_blocks(stream: IO[bytes], name: str, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a file as `split_objects` does, with arrays for the lists of lists of lists under `key`."""
    for number, data in enumerate(_pieces(stream, name, OBJECT_BYTES), start=1):
        place = f"{name}#object {number}"
        yield place, parse_arrays(data, place, (key,), 3)


def split_with(stream: IO[bytes], name: str, key: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file that have `key` somewhere, as `split_blocks` does; others are not parsed."""
    needle = f'"{key}"'.encode()
    for number, data in enumerate(_pieces(stream, name, OBJECT_BYTES), start=1):
        if needle in data:
            yield parse_arrays(data, f"{name}#object {number}", (key,), 3)


def first_keys(file: TraceFile) -> frozenset[str]:
    """Return the keys of the first object of a JSON file, for sniffing; none if it can't be parsed.

    Keys of objects inside, or first in a list inside, are joined by dots: ``choices.routed_experts``.
    """
    if file.head.lstrip().startswith(b"{") and (large := COUNTS.search(file.head)) is not None:
        return frozenset({large[1].decode()})  # an object of any size, which is not parsed to look at its keys
    try:
        return _parsed_keys(str(file.path), file.size, file.changed_ns)
    except OSError as error:
        raise InputError.of("cannot_read", file.name, f"Can't read it: {error.strerror}.", "Load it again.") from error


@lru_cache(maxsize=4)
def _parsed_keys(path: str, size: int, changed_ns: int) -> frozenset[str]:
    with open(path, "rb") as stream:  # noqa: PTH123
        try:  # as loosely as Python parses: keys tell what a file is, also where a value is not strict JSON
            value = json.loads(next(_pieces(stream, path, OBJECT_BYTES)))
        except (InputError, StopIteration, ValueError, RecursionError):
            return frozenset()
    if not isinstance(value, dict):
        return frozenset()
    keys = set(value)
    for key, inner in value.items():
        for item in inner[:1] if isinstance(inner, list) else [inner]:
            if isinstance(item, dict):
                keys |= {f"{key}.{name}" for name in item}
                for name, deep in item.items():
                    if isinstance(deep, dict):
                        keys |= {f"{key}.{name}.{last}" for last in deep}
    return frozenset(keys)


def _pieces(stream: IO[bytes], name: str, limit: int) -> Iterator[bytes]:
    """Cut out objects. Every byte is looked at once, however the file is read."""
    scan, held, size = ObjectScan(), list[bytes](), 0  # what has arrived of an object that has not ended

    def bad(what: str) -> InputError:
        return InputError.of("bad_json", f"{name}#object {scan.found + 1}", what, "Copy or record it again.")

    while True:
        with guarded(name):
            chunk = stream.read(CHUNK_BYTES)
        if not chunk:
            break
        at = 0
        while at < len(chunk) and not scan.fault:
            start = at
            at, begins, ends = scan.feed(chunk, at)
            if held:
                begins.insert(0, start)
            for begin, end in zip(begins, ends, strict=False):
                piece = chunk[begin:end]
                yield b"".join((*held, piece)) if held else piece
                held, size = [], 0
            if len(begins) > len(ends):
                held.append(chunk[begins[-1] : at])
                size += at - begins[-1]
        if scan.fault:
            raise bad(FAULTS[scan.fault])
        if size > limit:
            place, detail = f"{name}#object {scan.found + 1}", f"More than {limit} bytes."
            raise InputError.of("object_too_large", place, detail, "Write smaller responses.")
    if not scan.complete:
        raise bad("The file is cut off.")
