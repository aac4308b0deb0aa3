"""Titles of a table of counts: which column is the layer, the expert, the count, a rank or a time."""

from __future__ import annotations

import re

from traces.decoding.files import TraceFile

__all__ = ["BOM", "by_titles", "titles_of"]

BOM = b"\xef\xbb\xbf"
# What a title speaks of.
LAYER, EXPERT = re.compile(r"layer|block"), re.compile(r"expert")
RANK, TIME = re.compile(r"rank|device|gpu"), re.compile(r"step|iter|time|pass|epoch|batch|dump")
AMOUNT = re.compile(r"count|token|load|freq|activat|hits|num|weight|total|sum|value|per_|tpe|^n$|^c$")


def titles_of(file: TraceFile) -> list[str] | None:
    """Return the titles of the first line, or None where it is no line of titles."""
    first = file.head.removeprefix(BOM).split(b"\n", 1)[0].strip()
    if b"," not in first or first[:1] in (b"{", b"[") or not first.isascii():
        return None
    names = [name.strip().strip('"').lower() for name in first.decode().split(",")]
    return names if all(re.match(r"[a-z_]", name) for name in names) else None


def by_titles(names: list[str]) -> dict[str, int] | None:
    """Return the columns by what their titles speak of; None where layer, expert or count is not among them."""
    left = dict(enumerate(names))
    found: dict[str, int] = {}

    def take(meaning: str, wanted: re.Pattern[str], other: re.Pattern[str] | None = None) -> None:
        fits = [index for index, name in left.items() if wanted.search(name)]
        fits = [index for index in fits if other is None or not other.search(left[index])] or fits
        if fits:
            found[meaning] = fits[0]
            del left[fits[0]]

    take("layer", LAYER, EXPERT)
    take("expert", EXPERT, AMOUNT)  # tokens per expert are counts
    take("count", AMOUNT, TIME)
    take("rank", RANK)
    take("time", TIME)
    if "count" not in found and len(left) == 1:
        found["count"] = next(iter(left))
    return found if {"layer", "expert", "count"} <= set(found) else None
