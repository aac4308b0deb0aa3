"""Compiled parsing of lines of two integers, counted as it goes: text at hundreds of megabytes per second."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["BAD_LINE", "DONE", "TOO_LARGE", "as_bytes", "count_lines"]

DONE, BAD_LINE, TOO_LARGE = 0, 1, 2
_DIGITS = 9


@numba.njit(nogil=True, cache=True)
def count_lines(text: npt.NDArray[np.uint8], counts: npt.NDArray[np.int64], state: npt.NDArray[np.int64]) -> int:
    """Count whole lines ``a,b`` in ``counts[a, b]``.

    Parameters
    ----------
    text : (N,) uint8
        Lines that end with a line feed, which a carriage return may precede. Blanks around numbers are skipped.
    counts : (A, B) int64
        Incremented in place.
    state : (4,) int64
        Where the next line starts and how many lines were counted, both updated; and the two numbers of that line, if
        they are too large.

    Returns
    -------
    int
        `DONE`; `BAD_LINE` at a line that is no pair of integers of at most 9 digits; `TOO_LARGE` at one that does not
        fit `counts`. Counting can go on from there.
    """
    at = state[0]
    while at < len(text):
        first, second = 0, 0
        for part in range(2):
            while at < len(text) and (text[at] == 32 or text[at] == 9):
                at += 1
            digits, number = 0, 0
            while at < len(text) and 48 <= text[at] <= 57 and digits <= _DIGITS:
                number = number * 10 + (text[at] - 48)
                digits += 1
                at += 1
            while at < len(text) and (text[at] == 32 or text[at] == 9):
                at += 1
            if part == 1 and at < len(text) and text[at] == 13:
                at += 1
            if digits == 0 or digits > _DIGITS or at >= len(text) or text[at] != (44 if part == 0 else 10):
                return BAD_LINE
            at += 1
            if part == 0:
                first = number
            else:
                second = number
        if first >= counts.shape[0] or second >= counts.shape[1]:
            state[2], state[3] = first, second
            return TOO_LARGE
        counts[first, second] += 1
        state[0] = at
        state[1] += 1
    return DONE


def as_bytes(text: bytes) -> npt.NDArray[Any]:
    """Return `text` as the array that `count_lines` takes."""
    return np.frombuffer(text, np.uint8).copy()  # writeable: else the loop would be compiled again
