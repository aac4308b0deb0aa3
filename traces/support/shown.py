"""How objects show themselves: a few lines in a terminal, the same as a table in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise

__all__ = ["Facts", "as_html", "as_text", "numbers"]

MOST_FACTS = 9  # with the title, ten lines
MOST_WIDTH = 100
Facts = Sequence[tuple[str, str]]


def as_text(title: str, facts: Facts) -> str:
    """Return a title and a line per fact, at most ten lines of at most 100 characters."""
    rows = [f"  {name}: {' '.join(text.split())}" for name, text in facts[:MOST_FACTS]]
    return "\n".join(row if len(row) <= MOST_WIDTH else f"{row[: MOST_WIDTH - 3]}..." for row in (title, *rows))


def as_html(title: str, facts: Facts) -> str:
    """Return the same as an HTML table, for notebooks."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in facts)
    return f"<table><caption>{escape(title)}</caption><tbody>{rows}</tbody></table>"


def numbers(values: Iterable[int]) -> str:
    """Return rising integers in short: ``3..60`` where none is missing between, else the first ones."""
    listed = list(values)
    if len(listed) > 2 and all(after - before == 1 for before, after in pairwise(listed)):
        return f"{listed[0]}..{listed[-1]}"
    more = ", ..." if len(listed) > 8 else ""
    return ", ".join(map(str, listed[:8])) + more
