"""How objects show themselves: short texts, tables of a notebook, data frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["data_frame", "html_table", "number", "runs", "shorten", "spread_of"]

MAX_TEXT = 100  # columns of a terminal


def shorten(text: str, most: int = MAX_TEXT) -> str:
    """Return a text of at most so many characters, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def number(value: float | None, unknown: str = "unknown") -> str:
    """Return a number with four significant digits; whole ones in full."""
    if value is None:
        return unknown
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


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


def html_table(title: str, rows: Mapping[str, object] | Sequence[Sequence[object]], head: Sequence[str] = ()) -> str:
    """Return a table for notebooks; every text is escaped.

    Parameters
    ----------
    title : str
        Its caption.
    rows : mapping or sequence of sequences
        Cells; a mapping has a name and a value per row.
    head : sequence of str
        Names of the columns.
    """
    cells = [list(row) for row in (rows.items() if isinstance(rows, Mapping) else rows)]
    top = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>" if head else ""
    body = "".join(
        f'<tr><th style="text-align:left">{escape(str(row[0]))}</th>'
        + "".join(f'<td style="text-align:left">{escape(str(cell))}</td>' for cell in row[1:])
        + "</tr>"
        for row in cells
    )
    return f"<table><caption>{escape(title)}</caption>{top}{body}</table>"


def data_frame(columns: Mapping[str, object]) -> pd.DataFrame:
    """Return a pandas DataFrame of named columns.

    Raises
    ------
    ImportError
        If pandas is missing, with the command that installs it.
    """
    try:
        import pandas as pd
    except ImportError as error:
        message = 'Data frames need pandas: pip install "moe-placement[frame]"'
        raise ImportError(message) from error
    return pd.DataFrame(dict(columns))
