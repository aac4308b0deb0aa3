"""Lists of lists of integers in JSON, parsed by a compiled loop: an order of magnitude faster than as Python objects.

What the loop does not take, such as rows of several lengths or numbers that are no integers, is left to the JSON
parser, so that nothing is accepted or refused otherwise than without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import IO, Any, Literal

import numba
import numpy as np
import numpy.typing as npt

from traces.decoding.json_lines import Pairs, parse_object, read_lines

__all__ = ["parse_arrays", "read_records"]

SHORT_BYTES = 256  # below it, the JSON parser is as fast
PLACEHOLDER = 7_402_938_150_283_746_000  # and the numbers after it stand in the object where an array was cut out
MARK = b"%d" % PLACEHOLDER
MOST_ARRAYS = 64  # of a key in one object
NEAR_BYTES = 64  # between a key and its list
_DIGITS = 18


def read_records(stream: IO[bytes], name: str, keys: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSON Lines file, as `read_objects` does, with arrays in place of large integer lists.

    Parameters
    ----------
    stream : binary file
    name : str
        What places start with.
    keys : tuple of str
        See `parse_arrays`.
    """
    for place, line in read_lines(stream, name):
        yield place, parse_arrays(line, place, keys)


def parse_arrays(line: bytes, place: str, keys: tuple[str, ...], depth: Literal[2, 3] = 2) -> dict[str, Any]:
    """Parse an object as `parse_object` does, with arrays in place of large integer lists.

    Parameters
    ----------
    line : bytes
    place : str
        What errors point at.
    keys : tuple of str
        Keys, of the object or of one inside, whose values may be such lists: these are int64 arrays then, or what the
        JSON parser makes of them.
    depth : {2, 3}
        Axes of the arrays: lists of lists, or lists of those.
    """
    if len(line) < SHORT_BYTES:
        return parse_object(line, place)
    arrays: list[npt.NDArray[np.int64]] = []
    parts: list[bytes] = []
    done = 0
    text = None
    for start in _starts(line, keys):
        if start < done:
            continue
        if text is None:
            text = np.frombuffer(line, np.uint8).copy()  # writeable: else the loop would be compiled again
        end, array = _array(text, start, depth)
        if end > 0:
            parts += [line[done:start], b"%d" % (PLACEHOLDER + len(arrays))]
            arrays.append(array)
            done = end
    if not arrays:
        return parse_object(line, place)
    text_left = b"".join((*parts, line[done:]))
    record = parse_object(text_left, place)
    # Keys of the object itself, as there are most often: they are put back without a look at all others.
    if len(arrays) == 1 and text_left.count(MARK) == 1:
        for key in keys:
            if record.get(key) == PLACEHOLDER:
                record[key] = arrays[0]
                return record
    there = {key: record[key] - PLACEHOLDER for key in keys if type(record.get(key)) is int}
    marks = all(text_left.count(b"%d" % (PLACEHOLDER + number)) == 1 for number in range(len(arrays)))
    if marks and sorted(there.values()) == list(range(len(arrays))):
        return record | {key: arrays[number] for key, number in there.items()}
    taken: list[int] = []

    def put_back(pairs: Pairs) -> Pairs:
        return [(key, _stand_in(value, arrays, taken) if key in keys else value) for key, value in pairs]

    record = parse_object(text_left, place, put_back)
    if taken != list(range(len(arrays))):  # a key was in a text, or the file has such a number
        return parse_object(line, place)
    return record


def _starts(line: bytes, keys: tuple[str, ...]) -> list[int]:
    """Return where the lists of the keys begin, in order; those after the first of many are left to the JSON parser."""
    starts: list[int] = []
    for name in _quoted(keys):
        at = line.find(name)
        while at >= 0 and len(starts) < MOST_ARRAYS:
            after = at + len(name)
            start = line.find(b"[", after, after + NEAR_BYTES)
            if start >= 0 and line[after:start].strip() == b":":
                starts.append(start)
            at = line.find(name, after)
    return sorted(starts) if len(starts) > 1 else starts


@cache
def _quoted(keys: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(f'"{key}"'.encode() for key in keys)


def _array(text: npt.NDArray[np.uint8], start: int, depth: int) -> tuple[int, npt.NDArray[np.int64]]:
    """Return the end of a list and its content; -1 where it is none of that depth."""
    values = np.empty((len(text) - start) // 2 + 1, np.int64)
    if depth == 2:
        end, *shape = parse_rows(text, start, values)
    else:
        end, *shape = parse_blocks(text, start, values)
    if depth == 2:  # most often, and a product of two needs no loop
        values.resize(shape, refcheck=False)
        return end, values
    values.resize(math.prod(shape), refcheck=False)
    return end, values.reshape(shape)


def _stand_in(value: Any, arrays: list[npt.NDArray[np.int64]], taken: list[int]) -> Any:
    if type(value) is not int or not 0 <= value - PLACEHOLDER < len(arrays):
        return value
    taken.append(value - PLACEHOLDER)
    return arrays[value - PLACEHOLDER]


@numba.njit(nogil=True, cache=True)
def _skip(text: npt.NDArray[np.uint8], at: int) -> int:
    """Return the next place that is no white space."""
    while at < len(text) and (text[at] == 32 or text[at] == 10 or text[at] == 9 or text[at] == 13):
        at += 1
    return at


@numba.njit(nogil=True, cache=True)
def parse_rows(text: npt.NDArray[np.uint8], start: int, out: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    """Parse ``[[1, 2], [3, 4]]`` at ``text[start]`` to `out`; return end, rows and columns, or -1 and zeros.

    Rows have the same length, at least 1; numbers are JSON integers of at most 18 digits. `out` has room for a number
    per two bytes.
    """
    failed = (-1, 0, 0)
    at, count, rows, columns, size = start + 1, 0, 0, 0, len(text)
    while True:
        at = _skip(text, at)
        if at >= size or text[at] != 91:  # [
            return failed
        at += 1
        width = 0
        while True:
            at = _skip(text, at)
            sign = 1
            if at < size and text[at] == 45:  # -
                sign = -1
                at += 1
            digits, number, first = 0, 0, 0
            while at < size and 48 <= text[at] <= 57:
                if digits == 0:
                    first = text[at]
                number = number * 10 + (text[at] - 48)
                digits += 1
                at += 1
                if digits > _DIGITS:
                    return failed
            if digits == 0 or (first == 48 and digits > 1):
                return failed
            out[count] = sign * number
            count += 1
            width += 1
            at = _skip(text, at)
            if at >= size:
                return failed
            if text[at] == 44:  # ,
                at += 1
            elif text[at] == 93:  # ]
                at += 1
                break
            else:
                return failed
        if rows > 0 and width != columns:
            return failed
        columns = width
        rows += 1
        at = _skip(text, at)
        if at >= size:
            return failed
        if text[at] == 93:
            return (at + 1, rows, columns)
        if text[at] != 44:
            return failed
        at += 1


@numba.njit(nogil=True, cache=True)
def parse_blocks(text: npt.NDArray[np.uint8], start: int, out: npt.NDArray[np.int64]) -> tuple[int, int, int, int]:
    """Parse a list of such lists as `parse_rows` takes; return end, blocks, rows and columns, or -1 and zeros."""
    failed = (-1, 0, 0, 0)
    at, count, blocks, rows, columns = start + 1, 0, 0, 0, 0
    while True:
        at = _skip(text, at)
        if at >= len(text) or text[at] != 91:  # [
            return failed
        end, more, width = parse_rows(text, at, out[count:])
        if end < 0 or (blocks > 0 and (more != rows or width != columns)):
            return failed
        rows, columns = more, width
        count += rows * columns
        blocks += 1
        at = _skip(text, end)
        if at >= len(text):
            return failed
        if text[at] == 93:
            return (at + 1, blocks, rows, columns)
        if text[at] != 44:
            return failed
        at += 1
