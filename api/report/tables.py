"""Tables of plain text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return aligned text: the first `left` columns to the left, the others to the right.

    Parameters
    ----------
    header : sequence of str
        May hold line breaks.
    rows : sequence of sequence of str
    left : int
    """
    lines = [title.split("\n") for title in header]
    height = max(len(title) for title in lines)
    stacked = [[title[line] if line < len(title) else "" for title in lines] for line in range(height)]
    cells = [*stacked, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        parts = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(parts).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*map(line, stacked), rule, *map(line, rows)])
