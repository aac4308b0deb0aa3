"""How objects show themselves: a few lines in a terminal, the same as a table in a notebook, short figures in both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

__all__ = ["Facts", "Shown", "as_html", "as_text", "layers_that", "number", "runs", "shorten", "spread_of"]

MOST_FACTS = 9  # with the title, ten lines
MOST_LAYERS = 8  # that a sentence names
MOST_WIDTH = 100  # columns of a terminal
Facts = Sequence[tuple[str, str]] | Mapping[str, str]


def as_text(title: str, facts: Facts) -> str:
    """Return a title and a line per fact, at most ten lines of at most 100 characters."""
    rows = [(f"  {name}: ", text) for name, text in _rows(facts)][:MOST_FACTS]
    return "\n".join([shorten(title), *(name + shorten(str(text), MOST_WIDTH - len(name)) for name, text in rows)])


def as_html(title: str, facts: Facts | Sequence[Sequence[object]], head: Sequence[str] = ()) -> str:
    """Return the same as an HTML table, for notebooks; every text is escaped.

    Parameters
    ----------
    title : str
        Its caption.
    facts : mapping, or sequence of sequences
        Cells; a mapping has a name and a value per row.
    head : sequence of str
        Names of the columns.
    """
    top = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>" if head else ""
    body = "".join(
        f'<tr><th style="text-align:left">{escape(str(row[0]))}</th>'
        + "".join(f'<td style="text-align:left">{escape(str(cell))}</td>' for cell in row[1:])
        + "</tr>"
        for row in _rows(facts)
    )
    return f"<table><caption>{escape(title)}</caption>{top}{body}</table>"


class Shown:
    """Base of what shows itself as a title and facts: in a terminal, and as a table in a notebook.

    Dataclasses say ``repr=False``, or their own `__repr__` would win.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())

    def _shown(self) -> tuple[str, Facts]:
        """Return the title and the facts."""
        raise NotImplementedError


def _rows(facts: Any) -> list[Any]:
    return list(facts.items() if isinstance(facts, Mapping) else facts)


def shorten(text: str, most: int = MOST_WIDTH) -> str:
    """Return a text of at most so many characters, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def number(value: float | None, unknown: str = "unknown") -> str:
    """Return a number with four significant digits; whole ones in full."""
    if value is None:
        return unknown
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def layers_that(layers: Iterable[int], one: str, many: str) -> str:
    """Return the start of a sentence: ``Layer 0 holds``, or ``Layers 0, 3 hold``; at most eight are named."""
    named = [int(layer) for layer in layers]
    if len(named) == 1:
        return f"Layer {named[0]} {one}"
    return f"Layers {', '.join(map(str, named[:MOST_LAYERS]))}{', ...' * (len(named) > MOST_LAYERS)} {many}"


def runs(values: Iterable[int]) -> str:
    """Return rising whole numbers as runs: ``3-60``, or ``0, 2-4``."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    return shorten(", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts), 40)


def spread_of(values: Any) -> str:
    """Return the one value that all entries have, or the least and the largest."""
    least, most = float(np.min(values)), float(np.max(values))
    return number(least) if least == most else f"{number(least)} to {number(most)}"
