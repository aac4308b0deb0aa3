"""Charts as hand-written SVG: lines over layers, and matrices as heat maps. No script, nothing to load."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["heat_map", "line_chart"]

Floats = npt.NDArray[np.float64]
WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 38
TICKS = 5
MAP_SIDE = 380  # pixels of the longer side of a heat map, about


def line_chart(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    include: Sequence[float] = (),
    steps: bool = False,
    colour: int = 0,
) -> str:
    """Return a line chart.

    Parameters
    ----------
    series : sequence of (name, x, y)
        Drawn in the colours s0, s1, ... of the style sheet; every point has a tooltip.
    x_label, y_label : str
    include : sequence of float
        Values that the y axis must show, such as 1 for a ratio.
    steps : bool
        Hold each value until the next one.
    colour : int
        Colour of the first series.
    """
    points = [(np.asarray(x, dtype=float), np.asarray(y, dtype=float)) for _, x, y in series]
    every_x = np.concatenate([x for x, _ in points])
    every_y = np.concatenate([*(y for _, y in points), np.asarray(include, dtype=float)])
    if not every_x.size:
        return "<p>No data.</p>"
    x_axis, y_axis = _Axis(every_x, LEFT, WIDTH - RIGHT), _Axis(every_y, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label, quote=True)}">'
    ]
    for value in y_axis.ticks:
        y = y_axis.at(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in x_axis.ticks:
        x = x_axis.at(value)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:.4g}</text>'
        )
    for number, ((name, _, _), (xs, ys)) in enumerate(zip(series, points, strict=True), colour):
        places = [(x_axis.at(x), y_axis.at(y)) for x, y in zip(xs, ys, strict=True)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_stepped(places) if steps else places))
        parts.append(f'<polyline class="line s{number}" points="{line}"/>')
        for (x, y), at, value in zip(places, xs, ys, strict=True):
            tip = f"{name}, {x_label} {at:g}: {value:.4f}"
            parts.append(
                f'<circle class="dot s{number}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"><title>{escape(tip)}</title></circle>'
            )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="label" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text></svg>'
    )
    legend = "".join(
        f'<span class="key s{number}">{escape(name)}</span>' for number, (name, _, _) in enumerate(series, colour)
    )
    return f"<figcaption>{escape(y_label)}<br>{legend}</figcaption>{''.join(parts)}"


def heat_map(
    values: Floats,
    *,
    caption: str,
    row_label: str,
    column_label: str,
    low: float,
    high: float,
    rows: Sequence[str] | None = None,
    style: str = ".2f",
) -> str:
    """Return a matrix as coloured cells, each with its value as a tooltip.

    Parameters
    ----------
    values : (R, C) float64
        NaN is left blank.
    caption, row_label, column_label : str
    low, high : float
        Values of the palest and of the darkest colour; shared between maps to compare.
    rows : sequence of str, optional
        Names of the rows; their numbers by default.
    style : str
        Format of the values.
    """
    height, width = values.shape
    side = max(4.0, min(26.0, MAP_SIDE / max(height, width)))
    left, top = 34, 18
    size = (left + side * width + 4, top + side * height + 4)
    parts = [
        f'<svg class="map" viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" style="max-width:{size[0]:.0f}px" role="img" '
        f'aria-label="{escape(caption, quote=True)}">',
        f'<text class="tick" x="{left}" y="11">{escape(column_label)} →</text>',
    ]
    names = [str(row) for row in range(height)] if rows is None else list(rows)
    every = max(1, int(np.ceil(11 / side)))
    for row in range(height):
        y = top + side * row
        if row % every == 0:
            place = f'x="{left - 4}" y="{y + side / 2 + 4:.1f}"'
            parts.append(f'<text class="tick" {place} text-anchor="end">{escape(names[row])}</text>')
        for column in range(width):
            value = float(values[row, column])
            if np.isnan(value):
                continue
            strength = 0.0 if high <= low else min(1.0, max(0.0, (value - low) / (high - low)))
            tip = f"{row_label} {names[row]}, {column_label} {column}: {value:{style}}"
            parts.append(
                f'<rect x="{left + side * column:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}" '
                f'fill-opacity="{strength:.3f}"><title>{escape(tip)}</title></rect>'
            )
    return f"<figcaption>{escape(caption)}</figcaption>{''.join(parts)}</svg>"


class _Axis:
    """Maps values to pixels, with round ticks."""

    def __init__(self, values: Floats, first: float, last: float) -> None:
        low, high = float(values.min()), float(values.max())
        span = high - low or max(abs(high), 1.0) * 0.1
        raw = span / TICKS
        scale = 10.0 ** np.floor(np.log10(raw))
        step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= raw * (1 - 1e-9))
        begin, end = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
        self.ticks = [float(step * number) for number in range(int(begin), int(max(end, begin + 1)) + 1)]
        self._low, self._high, self._first, self._last = self.ticks[0], self.ticks[-1], first, last

    def at(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return float(self._first + share * (self._last - self._first))


def _stepped(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Insert the corners of a step function."""
    corners = list(places[:1])
    for (_, before), (x, y) in pairwise(places):
        corners += [(x, before), (x, y)]
    return corners
