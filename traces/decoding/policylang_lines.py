"""Compiled parsing of MoE-PolicyLang's lines.

    {"p": 0, "t": 5, "l": 3, "e": [1, 9], "s": [0.3, 0.2], "ph": "decode"}

What the loop does not take, such as other fields, escapes or numbers that are no integers, is left to the JSON parser,
so that nothing is accepted or refused otherwise than without it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["Entries", "Line", "entries_of", "parse_entries"]

PAD = bytes(16)  # behind the text, so that no place is beyond it
MOST_IDS = 1024  # of a line; more are left to the JSON parser
_DIGITS = 18
_P, _T, _L, _E, _S, _PH = 1, 2, 4, 8, 16, 32
Ints = npt.NDArray[np.int64]
Line = tuple[int, int, int, list[int], list[float] | None, int]  # prompt, token, layer, ids, scores, phase or -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Entries:
    """Lines, N of them.

    Attributes
    ----------
    prompt, token, layer : (N,) int64
    ids : (N, W) int64
        -1 behind the last of a line.
    scores : (M, W) float32 or None
        Of the M lines that have them, in order; 0 behind the last of a line.
    has_scores : (N,) bool
    phase : (N,) int8
        -1 where a line has none.
    """

    prompt: Ints
    token: Ints
    layer: Ints
    ids: Ints
    scores: npt.NDArray[np.float32] | None
    has_scores: npt.NDArray[np.bool_]
    phase: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.prompt)

    def part(self, start: int, stop: int) -> Entries:
        """Return some of the lines."""
        rows = slice(start, stop)
        before, there = int(self.has_scores[:start].sum()), int(self.has_scores[rows].sum())
        return Entries(
            prompt=self.prompt[rows],
            token=self.token[rows],
            layer=self.layer[rows],
            ids=self.ids[rows],
            scores=None if self.scores is None else self.scores[before : before + there],
            has_scores=self.has_scores[rows],
            phase=self.phase[rows],
        )


def entries_of(lines: list[Line]) -> Entries:
    """Return lines that were parsed one by one."""
    prompt, token, layer, ids, scores, phase = zip(*lines, strict=True)
    widest = max(map(len, ids))
    there = [weights for weights in scores if weights is not None]
    with np.errstate(over="ignore"):
        return Entries(
            prompt=np.array(prompt, np.int64),
            token=np.array(token, np.int64),
            layer=np.array(layer, np.int64),
            ids=np.array([row + [-1] * (widest - len(row)) for row in ids], np.int64),
            scores=np.array([row + [0.0] * (widest - len(row)) for row in there], np.float64).astype(np.float32)
            if there
            else None,
            has_scores=np.array([weights is not None for weights in scores]),
            phase=np.array(phase, np.int8),
        )


def parse_entries(text: bytes, top_k: int) -> Entries | None:
    """Parse whole lines; None if any of them is not of the usual form.

    Parameters
    ----------
    text : bytes
    top_k : int
        Most experts of a line.
    """
    top_k = min(top_k, MOST_IDS)
    count = text.count(b"\n") + (not text.endswith(b"\n"))
    numbers = np.zeros((3, count), np.int64)
    ids = np.full((count, top_k), -1, np.int64)
    scores = np.zeros((count, 2), np.int64)
    phase = np.full(count, -1, np.int8)
    array = np.frombuffer(text + PAD, np.uint8).copy()  # writeable: else the loop would be compiled again
    if parse_lines(array, len(text), numbers, ids, scores, phase) != count:
        return None
    there = scores[:, 1] > 0
    found = None
    if there.any():
        spans = scores[there].tolist()
        try:
            lists = json.loads(b"[" + b",".join(text[start:stop] for start, stop in spans) + b"]")
            widths = (ids[there] >= 0).sum(axis=1)
            found = np.zeros((len(lists), top_k), np.float32)
            with np.errstate(over="ignore"):
                flat = np.array([value for row in lists for value in row], np.float64).astype(np.float32)
            found[np.arange(top_k) < widths[:, np.newaxis]] = flat
        except (ValueError, OverflowError):
            return None
    return Entries(
        prompt=numbers[0], token=numbers[1], layer=numbers[2], ids=ids, scores=found, has_scores=there, phase=phase
    )


@numba.njit(nogil=True, cache=True)
def _skip(text: npt.NDArray[np.uint8], at: int) -> int:
    """Return the next place that is no white space within a line."""
    while text[at] == 32 or text[at] == 9 or text[at] == 13:
        at += 1
    return at


@numba.njit(nogil=True, cache=True)
def _number(text: npt.NDArray[np.uint8], at: int) -> tuple[int, int]:
    """Return the integer at a place, and where it ends; -1 if it is none of at most 18 digits."""
    start, value = at, 0
    while 48 <= text[at] <= 57 and at - start <= _DIGITS:
        value = value * 10 + (text[at] - 48)
        at += 1
    digits = at - start
    if digits == 0 or digits > _DIGITS or (text[start] == 48 and digits > 1):
        return -1, at
    return value, at


@numba.njit(nogil=True, cache=True)
def _is(text: npt.NDArray[np.uint8], at: int, word: tuple[int, ...]) -> bool:
    """Whether a word is at a place."""
    for offset in range(len(word)):  # noqa: SIM110  numba has no generators here
        if text[at + offset] != word[offset]:
            return False
    return True


@numba.njit(nogil=True, cache=True)
def _key(text: npt.NDArray[np.uint8], at: int) -> tuple[int, int]:
    """Return the bit of the key at a place, and where its value begins; 0 if it is another one."""
    if text[at] != 34:
        return 0, at
    bit, end = 0, at + 2
    first = text[at + 1]
    if first == 112 and text[at + 2] == 104:
        bit, end = _PH, at + 3
    elif first == 112:
        bit = _P
    elif first == 116:
        bit = _T
    elif first == 108:
        bit = _L
    elif first == 101:
        bit = _E
    elif first == 115:
        bit = _S
    if bit == 0 or text[end] != 34:
        return 0, at
    at = _skip(text, end + 1)
    if text[at] != 58:  # :
        return 0, at
    return bit, _skip(text, at + 1)


@numba.njit(nogil=True, cache=True)
def _experts(text: npt.NDArray[np.uint8], at: int, row: Ints) -> tuple[int, int]:
    """Parse a list of integers into a row; return how many, and where it ends. 0 if it is none, or too long."""
    if text[at] != 91:
        return 0, at
    at, count = at + 1, 0
    while True:
        value, at = _number(text, _skip(text, at))
        if value < 0 or count == len(row):
            return 0, at
        row[count] = value
        count += 1
        at = _skip(text, at)
        if text[at] == 93:
            return count, at + 1
        if text[at] != 44:
            return 0, at
        at += 1


@numba.njit(nogil=True, cache=True)
def _list_of_numbers(text: npt.NDArray[np.uint8], at: int) -> tuple[int, int]:
    """Return how many entries a list has that nothing but characters of numbers are in, and where it ends; 0 if not."""
    if text[at] != 91:
        return 0, at
    at, count = at + 1, 1
    while text[at] != 93:
        here = text[at]
        if here == 44:
            count += 1
        elif not (48 <= here <= 57 or here in (32, 43, 45, 46, 69, 101)):
            return 0, at
        at += 1
    return count, at + 1


@numba.njit(nogil=True, cache=True)
def parse_lines(
    text: npt.NDArray[np.uint8],
    size: int,
    numbers: Ints,
    ids: Ints,
    scores: Ints,
    phase: npt.NDArray[np.int8],
) -> int:
    """Parse lines; return how many there are, or -1 if one is of another form.

    Parameters
    ----------
    text : (>= size + 16,) uint8
        Zeros behind `size`.
    size : int
    numbers : (3, N) int64
        Prompt, token and layer of each line; written to, like the others.
    ids : (N, K) int64
    scores : (N, 2) int64
        Where the list of scores begins and ends; left as it is where there is none.
    phase : (N,) int8
    """
    at, row = 0, 0
    while at < size:
        at = _skip(text, at)
        if text[at] != 123 or row == ids.shape[0]:  # {
            return -1
        at = _skip(text, at + 1)
        seen, experts, weights = 0, 0, -1
        while True:
            bit, at = _key(text, at)
            if bit == 0 or seen & bit:
                return -1
            seen |= bit
            if bit == _E:
                experts, at = _experts(text, at, ids[row])
                if experts == 0:
                    return -1
            elif bit == _S:
                if _is(text, at, (110, 117, 108, 108)):  # null
                    at += 4
                else:
                    scores[row, 0] = at
                    weights, at = _list_of_numbers(text, at)
                    scores[row, 1] = at
                    if weights == 0:
                        return -1
            elif bit == _PH:
                if _is(text, at, (110, 117, 108, 108)):
                    at += 4
                elif _is(text, at, (34, 112, 114, 101, 102, 105, 108, 108, 34)):  # "prefill"
                    phase[row] = 0
                    at += 9
                elif _is(text, at, (34, 100, 101, 99, 111, 100, 101, 34)):  # "decode"
                    phase[row] = 1
                    at += 8
                else:
                    return -1
            else:
                value, at = _number(text, at)
                if value < 0:
                    return -1
                numbers[0 if bit == _P else 1 if bit == _T else 2, row] = value
            at = _skip(text, at)
            if text[at] == 125:  # }
                break
            if text[at] != 44:
                return -1
            at = _skip(text, at + 1)
        at = _skip(text, at + 1)
        if (text[at] != 10 and at < size) or (seen & (_T | _L | _E)) != _T | _L | _E:
            return -1
        if weights >= 0 and weights != experts:
            return -1
        at += 1
        row += 1
    return row
