"""JSON objects one after the other, whether they are lines, a list, or a single one over many lines.

Whole responses of engines are large, and a file of them larger; so objects are cut out by their braces and parsed one
at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Any

from traces.decoding.files import TraceFile, guarded
from traces.decoding.int_lists import parse_arrays
from traces.decoding.json_lines import parse_object
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
MAX_DEPTH = 200
OUTSIDE = re.compile(rb'["{}\[\],]|[^\s"{}\[\],]')  # between objects
INSIDE = re.compile(rb'["{}]')  # brackets are left to the parser: arrays have many
STRING = re.compile(rb'["\\]')


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
        try:
            value = next(split_objects(stream, path))[1]
        except (InputError, StopIteration):
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
    buffer, position, start = bytearray(), 0, -1
    depth, in_string, listed, ended = 0, False, False, False
    number = 1

    def bad(what: str) -> InputError:
        return InputError.of("bad_json", f"{name}#object {number}", what, "Copy or record it again.")

    while True:
        with guarded(name):
            chunk = stream.read(CHUNK_BYTES)
        if not chunk:
            break
        buffer += chunk
        while True:
            pattern = STRING if in_string else INSIDE if depth else OUTSIDE
            match = pattern.search(buffer, position)
            if match is None:
                position = len(buffer)
                break
            found = match[0]
            if found == b"\\":
                if match.end() == len(buffer):  # what it escapes comes with the next chunk
                    position = match.start()
                    break
                position = match.end() + 1
                continue
            position = match.end()
            if in_string:
                in_string = False
            elif depth:
                if found == b'"':
                    in_string = True
                elif found == b"{":
                    depth += 1
                    if depth > MAX_DEPTH:
                        raise bad(f"Nested more than {MAX_DEPTH} deep.")
                else:
                    depth -= 1
                    if not depth:
                        yield bytes(buffer[start:position])
                        number += 1
                        del buffer[:position]
                        position, start = 0, -1
            elif ended:
                raise bad("There is more after the end of the list.")
            elif found == b"{":
                depth, start = 1, match.start()
            elif found == b"[" and not listed and number == 1:
                listed = True
            elif found == b"]" and listed:
                ended = True
            elif not (found == b"," and listed and number > 1):
                raise bad("Expected an object.")
        if start < 0:
            del buffer[:position]
            position = 0
        elif len(buffer) - start > limit:
            raise InputError.of(
                "object_too_large", f"{name}#object {number}", f"More than {limit} bytes.", "Write smaller responses."
            )
    if depth or (listed and not ended):
        raise bad("The file is cut off.")
