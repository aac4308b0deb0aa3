"""A JSON object with one large value of nested lists of numbers, read a list at a time in constant memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from traces.decoding.files import guarded
from traces.support.errors import InputError

__all__ = ["numbers_under"]

CHUNK_BYTES = 4 << 20
LIST_BYTES = 4 << 20  # of a list of numbers, or of a value beside them
MAX_DEPTH = 3


def numbers_under(
    stream: IO[bytes], name: str, keys: tuple[str, ...]
) -> Iterator[tuple[int, npt.NDArray[np.float64] | None]]:
    """Yield the innermost lists under one of `keys` with their depth, and (depth, None) where an outer list ends.

    Parameters
    ----------
    stream : binary file
        Of one JSON object. Other values of it are parsed and left out.
    name : str
        What places start with.
    keys : tuple of str

    Raises
    ------
    InputError
        If it is no strict JSON object, none or two of the keys are there, or what is there are no lists of numbers at
        most three deep.
    """
    text = _Text(stream, name)
    found: list[str] = []
    text.take("{")
    while text.next() != "}":
        if found or text.passed:
            text.take(",")
        key = text.value()
        if not isinstance(key, str):
            raise text.bad("A key is no text.")
        text.take(":")
        if key not in keys:
            text.value()
            text.passed = True
            continue
        if found:
            raise InputError.of("duplicate_key", f"{name}#/{key}", "The counts are there twice.", "Keep one of them.")
        found.append(key)
        if text.next() != "[":
            raise _shape(f"{name}#/{key}")
        yield from _lists(text, f"{name}#/{key}")
    text.take("}")
    if text.next():
        raise text.bad("There is more after the end of the object.")
    if not found:
        raise InputError.of("load_shape", name, f"There is no {' or '.join(keys)}.", "Give the file as it was written.")


def _lists(text: _Text, place: str) -> Iterator[tuple[int, npt.NDArray[np.float64] | None]]:
    """Yield the lists of the value that begins here."""
    depth, comma = 0, False
    while True:
        found = text.next()
        if found == "]" and depth:
            text.take("]")
            depth -= 1
            yield depth, None
            comma = True
            if not depth:
                return
            continue
        if comma:
            text.take(",")
            found, comma = text.next(), False
        if found != "[" or depth >= MAX_DEPTH:
            raise _shape(place)
        text.take("[")
        depth += 1
        if text.next() in ("[", "]"):
            continue
        row = text.numbers(place)
        yield depth, row
        depth -= 1
        comma = True
        if not depth:
            raise _shape(place)


class _Text:
    """The text that was read and not yet used."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name = stream, name
        self._held, self._at = "", 0
        self._rest = b""
        self.passed = False  # a value that was left out

    def bad(self, what: str) -> InputError:
        return InputError.of("bad_json", self._name, what, "Copy or record it again.")

    def next(self) -> str:
        """Return the next character that is no blank, without using it; empty at the end."""
        while True:
            while self._at < len(self._held):
                found = self._held[self._at]
                if found not in " \t\r\n":
                    return found
                self._at += 1
            if not self._more():
                return ""

    def take(self, wanted: str) -> None:
        """Use the next character, which must be this one."""
        found = self.next()
        if found != wanted:
            raise self.bad(f"Expected {wanted!r}; got {found!r}." if found else "The file is cut off.")
        self._at += 1

    def value(self) -> Any:
        """Use and return any JSON value, if it is not large."""
        self.next()
        decoder = json.JSONDecoder(parse_constant=self._constant)
        while True:
            try:
                value, end = decoder.raw_decode(self._held, self._at)
            except (ValueError, RecursionError) as error:
                if len(self._held) - self._at > LIST_BYTES or not self._more():
                    raise self.bad(f"This is no JSON: {str(error)[:80]}.") from error
                continue
            if end == len(self._held) and isinstance(value, int | float) and self._more():
                continue  # a number may go on
            self._at = end
            return value

    def numbers(self, place: str) -> npt.NDArray[np.float64]:
        """Use the rest of a list of numbers, with the bracket that ends it."""
        end = self._held.find("]", self._at)
        while end < 0:
            searched = len(self._held)
            if searched - self._at > LIST_BYTES or not self._more():
                raise _shape(place)
            end = self._held.find("]", self._at)
        with guarded(place, RecursionError):
            row = json.loads(f"[{self._held[self._at : end]}]", parse_constant=self._constant)
        self._at = end + 1
        if not set(map(type, row)) <= {int, float}:
            raise _shape(place)
        with guarded(place):
            return np.array(row, dtype=np.float64)

    def _constant(self, text: str) -> None:
        raise InputError.of("not_finite", self._name, f"{text} is not allowed.", "Correct the counts.")

    def _more(self) -> bool:
        with guarded(self._name):
            data = self._stream.read(CHUNK_BYTES)
            if not data:
                if self._rest:
                    raise self.bad("The file is cut off.")
                return False
            data = self._rest + data
            cut = len(data)
            while cut and len(data) - cut < 4 and data[cut - 1] & 0xC0 == 0x80:
                cut -= 1  # a character of several bytes may go on in the next chunk
            if cut and data[cut - 1] & 0xC0 == 0xC0:
                cut -= 1
            else:
                cut = len(data)
            data, self._rest = data[:cut], data[cut:]
            self._held = self._held[self._at :] + data.decode("utf-8")
        self._at = 0
        return True


def _shape(place: str) -> InputError:
    detail = "Expected lists of numbers, (layers, experts) or (steps, layers, experts)."
    return InputError.of("load_shape", place, detail, "Give every layer all experts.")
