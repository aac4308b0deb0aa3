"""Whether what is printed now is what a page says: words to the letter, numbers closely."""

from __future__ import annotations

import re

__all__ = ["same"]

NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
CLOSE = 0.1  # of a number, or three units of its last digit: searches and the time model are worked on


def same(now: str, page: str) -> bool:
    """Whether two outputs have the same words, and numbers that are close."""
    numbers = [NUMBER.findall(text) for text in (now, page)]
    words = [NUMBER.sub("0", text).split() for text in (now, page)]
    return words[0] == words[1] and all(
        abs(float(one) - float(other)) <= max(CLOSE * abs(float(other)), 3.01 * 10.0 ** -len(other.partition(".")[2]))
        for one, other in zip(*numbers, strict=True)
    )
