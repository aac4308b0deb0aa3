"""Titles of a table of counts: which column is the layer, the expert, the count, a rank or a time."""

from __future__ import annotations

import re

from traces.decoding.files import TraceFile
from traces.formats.shared.csv_lines import BOM, delimiter_of
from traces.support.errors import Violations

__all__ = ["by_titles", "says_nothing", "titles_of"]

# What a title speaks of.
LAYER, EXPERT = re.compile(r"layer|block"), re.compile(r"expert")
RANK, TIME = re.compile(r"rank|device|gpu"), re.compile(r"step|iter|time|pass|epoch|batch|dump")
AMOUNT = re.compile(r"count|token|load|freq|activat|hits|num|weight|total|sum|value|per_|tpe|^n$|^c$")
# A number of a line, of its token or row: no count.
INDEX = re.compile(
    r"|unnamed: ?0|index|idx|id|"
    r"(token|pos|position|row|line|sample|prompt|seq|sequence|request)(_?(id|idx|index|no|nr|number|pos|position))?"
)


def titles_of(file: TraceFile) -> list[str] | None:
    """Return the titles of the first line, or None where it is no line of titles."""
    first = file.head.removeprefix(BOM).split(b"\n", 1)[0].strip(b" \r")
    delimiter = delimiter_of(file)
    if delimiter.encode() not in first or first[:1] in (b"{", b"[") or not first.isascii():
        return None
    names = [name.strip().strip('"').lower() for name in first.decode().split(delimiter)]
    titled = names if names[0] else names[1:]  # a column that numbers the lines has no title
    return names if all(re.match(r"[a-z_]", name) for name in titled) else None


def by_titles(names: list[str], place: str) -> dict[str, int] | None:
    """Return the columns by what their titles speak of; None where layer, expert or count is not among them.

    Raises
    ------
    InputError
        If several columns may be the layer, the expert or the count.
    """
    left = dict(enumerate(names))
    found: dict[str, int] = {}
    unclear = Violations()

    def take(meaning: str, wanted: re.Pattern[str], other: re.Pattern[str] | None = None) -> None:
        fits = [index for index, name in left.items() if wanted.search(name)]
        fits = [index for index in fits if other is None or not other.search(left[index])] or fits
        if meaning == "count":
            fits = [index for index in fits if not INDEX.fullmatch(left[index])]
        if len(fits) > 1 and meaning in ("layer", "expert", "count"):
            which = ", ".join(left[index][:40] for index in fits[:8])
            remedy = "Keep the one that is meant: logical experts, and the counts of one kind."
            unclear.add("csv_titles", f"{place}#line 1", f"Columns {which} may each be the {meaning}.", remedy)
        if fits:
            found[meaning] = fits[0]
            del left[fits[0]]

    take("layer", LAYER, EXPERT)
    take("expert", EXPERT, AMOUNT)  # tokens per expert are counts
    take("count", AMOUNT, TIME)
    take("rank", RANK)
    take("time", TIME)
    if "count" not in found and len(left) == 1 and not INDEX.fullmatch(next(iter(left.values()))):
        found["count"] = next(iter(left))
    if not {"layer", "expert", "count"} <= set(found):
        return None
    unclear.raise_if_any()
    return found


def says_nothing(names: list[str]) -> bool:
    """Return whether no title speaks of anything that is known, so that columns can only go by their order."""
    known = (LAYER, EXPERT, RANK, TIME, AMOUNT)
    return not any(INDEX.fullmatch(name) or any(meaning.search(name) for meaning in known) for name in names)
