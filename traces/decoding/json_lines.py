"""Strict JSON Lines: one object per line, without NaN, Infinity or repeated keys."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol

from traces.decoding.files import guarded
from traces.support.errors import InputError

__all__ = ["LINE_BYTES", "Lines", "Pairs", "Rest", "parse_object", "read_lines", "read_objects"]

LINE_BYTES = 16 << 20
Pairs = list[tuple[str, Any]]


class Lines(Protocol):
    """What lines are read from."""

    def readline(self, size: int, /) -> bytes:
        """Return the next line, at most so many bytes of it."""


class Rest:
    """Lines of a text, and then those of a stream.

    Parameters
    ----------
    text : bytes
    stream : binary file
    """

    def __init__(self, text: bytes, stream: IO[bytes]) -> None:
        self._text, self._stream = io.BytesIO(text), stream

    def readline(self, size: int, /) -> bytes:
        """Return the next line."""
        return self._text.readline(size) or self._stream.readline(size)


def read_objects(stream: Lines, name: str, first: int = 1) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSON Lines file with the place of each, for errors.

    Parameters
    ----------
    stream : binary file
    name : str
        What places start with.
    first : int
        Number of the first line.

    Raises
    ------
    InputError
        At the first line that is no JSON object. Blank lines are allowed at the end only.
    """
    for place, line in read_lines(stream, name, first):
        yield place, parse_object(line, place)


def read_lines(stream: Lines, name: str, first: int = 1) -> Iterator[tuple[str, bytes]]:
    """Yield the lines of a file with the place of each; blank ones are allowed at the end only."""
    blank, number = 0, first - 1
    while True:
        number += 1
        place = f"{name}#line {number}"
        with guarded(place):
            line = stream.readline(LINE_BYTES + 1)
        if not line:
            return
        if len(line) > LINE_BYTES:
            raise InputError.of("line_too_long", place, f"More than {LINE_BYTES} bytes.", "Write one token per line.")
        if not line.strip():
            blank = blank or number
            continue
        if blank:
            raise InputError.of("blank_line", f"{name}#line {blank}", "A blank line amid the tokens.", "Delete it.")
        yield place, line


def parse_object(line: bytes, place: str, change: Callable[[Pairs], Pairs] | None = None) -> dict[str, Any]:
    """Parse strict JSON that must be an object; `place` is what errors point at.

    Parameters
    ----------
    line : bytes
    place : str
    change : callable, optional
        Is given the keys and values of every object, those inside as well, and returns them as they shall be.
    """
    hook = _unique if change is None else lambda pairs: _unique(change(pairs))
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=hook)
    except _RefusedError as error:
        raise InputError.of(error.code, place, str(error), "Correct the line.") from error
    except (ValueError, RecursionError) as error:
        what = "is no JSON" if line.endswith(b"\n") else "is cut off, or no JSON"
        raise InputError.of(
            "bad_json", place, f"The line {what}: {str(error)[:120]}.", "Copy or record it again."
        ) from error
    if not isinstance(value, dict):
        raise InputError.of("bad_json", place, "Expected an object.", 'Write {"topk_ids": [[...], ...]} per token.')
    return value


class _RefusedError(Exception):
    """JSON that Python accepts and this format doesn't."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _refuse_constant(text: str) -> None:
    raise _RefusedError("not_finite", f"{text} is not allowed.")


def _unique(pairs: Pairs) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RefusedError("duplicate_key", f"Key {twice[:40]!r} occurs twice.")
    return unique
