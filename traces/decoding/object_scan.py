"""Where JSON objects begin and end, found by a compiled loop: a file that is one long line takes no longer than others.

Only quotes, braces and what is between objects are looked at: the rest is the parser's.
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["MAX_DEPTH", "MORE_AFTER_LIST", "NO_OBJECT", "TOO_DEEP", "ObjectScan"]

MAX_DEPTH: Final = 200
MOST = 1 << 14  # objects that one call of the loop finds
# What the loop ends with.
GOES_ON, TOO_DEEP, MORE_AFTER_LIST, NO_OBJECT = 0, 1, 2, 3
# Places in the state.
_DEPTH, _IN_STRING, _ESCAPED, _LISTED, _ENDED, _FOUND = range(6)

_QUOTE, _BACKSLASH, _OPEN, _CLOSE, _COMMA, _BEGIN_LIST, _END_LIST = b'"\\{},[]'


class ObjectScan:
    """The state of a scan; it goes on from chunk to chunk.

    Attributes
    ----------
    fault : int
        0, or why the file is no series of objects: `TOO_DEEP`, `MORE_AFTER_LIST`, `NO_OBJECT`.
    """

    def __init__(self) -> None:
        self.fault = GOES_ON
        self._state = np.zeros(6, np.int64)
        self._begins, self._ends = np.empty(MOST, np.int64), np.empty(MOST, np.int64)

    @property
    def found(self) -> int:
        """How many objects have ended so far."""
        return int(self._state[_FOUND])

    @property
    def inside(self) -> bool:
        """Whether an object has begun and not ended."""
        return bool(self._state[_DEPTH])

    @property
    def complete(self) -> bool:
        """Whether the file may end here."""
        return not self.inside and (not self._state[_LISTED] or bool(self._state[_ENDED]))

    def feed(self, chunk: bytes, at: int) -> tuple[int, list[int], list[int]]:
        """Look at ``chunk[at:]``.

        Returns
        -------
        int
            How far the scan came; the end of the chunk, unless there were too many objects for one call or `fault` is
            set.
        list of int, list of int
            Where objects begin and end in the chunk. One that began in an earlier chunk has no begin; one that does
            not end here has no end.
        """
        text = np.frombuffer(chunk, np.uint8)
        self.fault, at, begun, ended = scan(text, at, self._state, self._begins, self._ends)
        return at, self._begins[:begun].tolist(), self._ends[:ended].tolist()


@numba.njit(nogil=True, cache=True)
def scan(
    text: npt.NDArray[np.uint8],
    at: int,
    state: npt.NDArray[np.int64],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
) -> tuple[int, int, int, int]:
    """Look at ``text[at:]``; return a fault or 0, how far it came, and the numbers of begins and ends."""
    depth, in_string, escaped = state[_DEPTH], state[_IN_STRING], state[_ESCAPED]
    listed, ended, found = state[_LISTED], state[_ENDED], state[_FOUND]
    begun, done, fault = 0, 0, 0
    while at < len(text) and begun < len(begins):
        byte = text[at]
        if escaped:
            escaped = 0
        elif in_string:
            if byte == _BACKSLASH:
                escaped = 1
            elif byte == _QUOTE:
                in_string = 0
        elif depth:
            if byte == _QUOTE:
                in_string = 1
            elif byte == _OPEN:
                depth += 1
                if depth > MAX_DEPTH:
                    fault = TOO_DEEP
                    break
            elif byte == _CLOSE:
                depth -= 1
                if depth == 0:
                    ends[done] = at + 1
                    done += 1
                    found += 1
                    if done == len(ends):
                        at += 1
                        break
        elif byte == 32 or 9 <= byte <= 13:  # white space
            pass
        elif ended:
            fault = MORE_AFTER_LIST
            break
        elif byte == _OPEN:
            depth = 1
            begins[begun] = at
            begun += 1
        elif byte == _BEGIN_LIST and not listed and found == 0:
            listed = 1
        elif byte == _END_LIST and listed:
            ended = 1
        elif not (byte == _COMMA and listed and found > 0):
            fault = NO_OBJECT
            break
        at += 1
    state[_DEPTH], state[_IN_STRING], state[_ESCAPED] = depth, in_string, escaped
    state[_LISTED], state[_ENDED], state[_FOUND] = listed, ended, found
    return fault, at, begun, done
