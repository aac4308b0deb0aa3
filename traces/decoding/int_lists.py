"""Lists of lists of integers in JSON, parsed by a compiled loop: an order of magnitude faster than as Python objects.

What the loop does not take, such as rows of several lengths or numbers that are no integers, is left to the JSON
parser, so that nothing is accepted or refused otherwise than without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import numba
import numpy as np
import numpy.typing as npt

from traces.decoding.json_lines import parse_object, read_lines

__all__ = ["read_records"]

SHORT_BYTES = 256  # below it, the JSON parser is as fast
PLACEHOLDER = 7_402_938_150_283_746_551  # stands in the object where a matrix was cut out
_DIGITS = 18


def read_records(stream: IO[bytes], name: str, keys: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSON Lines file, as `read_objects` does, with arrays in place of large integer matrices.

    Parameters
    ----------
    stream : binary file
    name : str
        What places start with.
    keys : tuple of str
        Keys whose values may be matrices: these are (rows, columns) int64 then, or what the JSON parser makes of them.
    """
    for place, line in read_lines(stream, name):
        yield place, _parse(line, place, keys)


def _parse(line: bytes, place: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if len(line) < SHORT_BYTES:
        return parse_object(line, place)
    matrices: dict[str, npt.NDArray[np.int64]] = {}
    rest = line
    for key in keys:
        at = rest.find(f'"{key}"'.encode())
        start = rest.find(b"[", at) if at >= 0 else -1
        if start < 0 or rest[at + len(key) + 2 : start].strip() != b":":
            continue
        text = np.frombuffer(rest, np.uint8).copy()  # writeable: else the loop would be compiled again
        values = np.empty((len(rest) - start) // 2 + 1, np.int64)
        end, rows, columns = parse_rows(text, start, values)
        if end > 0:
            matrices[key] = values[: rows * columns].reshape(rows, columns).copy()
            rest = b"%s%d%s" % (rest[:start], PLACEHOLDER, rest[end:])
    record = parse_object(rest, place)
    if any(type(record.get(key)) is not int or record[key] != PLACEHOLDER for key in matrices):
        return parse_object(line, place)  # the key was in a text, or an object inside
    return record | matrices


@numba.njit(nogil=True, cache=True)
def parse_rows(text: npt.NDArray[np.uint8], start: int, out: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    """Parse ``[[1, 2], [3, 4]]`` at ``text[start]`` to `out`; return end, rows and columns, or -1 and zeros.

    Rows have the same length, at least 1; numbers are JSON integers of at most 18 digits. `out` has room for a number
    per two bytes.
    """
    failed = (-1, 0, 0)
    at, count, rows, columns, size = start + 1, 0, 0, 0, len(text)
    while True:
        while at < size and (text[at] == 32 or text[at] == 9):
            at += 1
        if at >= size or text[at] != 91:  # [
            return failed
        at += 1
        width = 0
        while True:
            while at < size and (text[at] == 32 or text[at] == 9):
                at += 1
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
            while at < size and (text[at] == 32 or text[at] == 9):
                at += 1
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
        while at < size and (text[at] == 32 or text[at] == 9):
            at += 1
        if at >= size:
            return failed
        if text[at] == 93:
            return (at + 1, rows, columns)
        if text[at] != 44:
            return failed
        at += 1
