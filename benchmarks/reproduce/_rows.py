"""What the papers share: a figure as printed and as it comes out here, tables of them, and fits to one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Row", "as_table", "bisected", "gain"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure, as printed and as it comes out here.

    Attributes
    ----------
    what : str
    printed : float, pair of floats, or None
        A pair is a range, from least to most; None where nothing is printed and the figure stands beside the others.
    here : float, or pair of floats
    form : str
        Format of both.
    fitted : bool
        Whether the routing was fitted to this figure, or is this parameter of it, so that it judges nothing.
    most : bool
        Whether `printed` is the best of the paper's settings ("up to"), which one setting need not reach.
    """

    what: str
    printed: float | tuple[float, float] | None
    here: float | tuple[float, float]
    form: str = "{:.2f}"
    fitted: bool = False
    most: bool = False

    @property
    def difference(self) -> str:
        """How the reproduced figure stands to the printed one, in a word or as a fraction of it."""
        if self.fitted or self.printed is None:
            return "fitted" if self.fitted else "-"
        low, high = self.here if isinstance(self.here, tuple) else (self.here, self.here)
        if isinstance(self.printed, tuple):
            least, most = self.printed
            inside = least <= low and high <= most
            return "within" if inside else "below" if high < least else "above" if low > most else "overlaps"
        if self.most:
            return "beyond" if high > self.printed else f"{100 * high / self.printed:.0f} % of it"
        if isinstance(self.here, tuple):
            return "contains it" if low <= self.printed <= high else "below" if high < self.printed else "above"
        if self.here == self.printed:
            return "the same"
        if self.what.endswith("%"):
            return f"{self.here - self.printed:+.1f} points"
        return f"{100 * (self.here / self.printed - 1):+.1f} %"

    def cells(self) -> tuple[str, str, str, str]:
        """Return the cells of the table."""

        def shown(value: float | tuple[float, float] | None) -> str:
            if value is None:
                return ""
            return " to ".join(map(self.form.format, value)) if isinstance(value, tuple) else self.form.format(value)

        printed = shown(self.printed)
        return self.what, f"up to {printed}" if self.most else printed, shown(self.here), self.difference


def as_table(rows: Sequence[Row]) -> str:
    """Return the rows as a table of the documentation."""
    head = ["| figure | printed | here | difference |", "|---|---:|---:|---|"]
    return "\n".join([*head, *("| " + " | ".join(row.cells()) + " |" for row in rows)])


def gain(before: float, after: float) -> float:
    """Return how much shorter `after` is, in percent of `before`."""
    return 100 * (1 - after / before)


def bisected(figure: Callable[[float], float], wanted: float, low: float, high: float, steps: int = 10) -> float:
    """Return the argument at which a figure that falls or rises over [low, high] is as wanted.

    Raises
    ------
    ValueError
        If it is not reached within them: nothing is said to be fitted that is not.
    """
    first, last = figure(low), figure(high)
    if not min(first, last) <= wanted <= max(first, last):
        raise ValueError(
            f"{wanted:g} is not between {first:g} and {last:g}: it can't be fitted on {low:g} to {high:g}."
        )
    rising = last > first
    for _ in range(steps):
        middle = (low + high) / 2
        if (figure(middle) < wanted) == rising:
            low = middle
        else:
            high = middle
    return (low + high) / 2
