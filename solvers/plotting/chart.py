"""A front as a chart in a file: SVG, or PNG with matplotlib."""

from __future__ import annotations

import importlib.util
from html import escape
from pathlib import Path
from typing import Any

from solvers.fronts.judged import cost_name
from solvers.fronts.points import AXES, AXIS_NAMES
from solvers.plotting.svg import line_chart
from traces import InputError
from traces.support.atomic import atomic_write

__all__ = ["CHART_FORMATS", "check_chart", "write_chart"]

CHART_FORMATS = (".svg", ".png")
STYLE = (
    ".grid{stroke:#ddd}.tick,.label,.title{font:11px sans-serif;fill:#444}.line{fill:none;stroke-width:1.8}"
    ".line.s0{stroke:#1f6fb2}.dot.s0{fill:#1f6fb2}.line.s1{stroke:#c8553d}.dot.s1{fill:#c8553d}"
)


def check_chart(path: Path | None) -> None:
    """Refuse a chart that can't be made, before the search.

    Raises
    ------
    InputError
    """
    if path is None:
        return
    if path.suffix.lower() not in CHART_FORMATS:
        detail = f"A chart can't be written as {path.suffix or 'a file without an ending'}."
        raise InputError.of("chart_format", str(path), detail, f"Use one of {', '.join(CHART_FORMATS)}.")
    if path.suffix.lower() == ".png" and importlib.util.find_spec("matplotlib") is None:
        remedy = 'Write .svg, or install it: pip install "moe-placement[plot]".'
        raise InputError.of("no_matplotlib", str(path), "PNG charts need matplotlib.", remedy)


def write_chart(path: Path, document: dict[str, Any]) -> None:
    """Write a front, of its document, as a chart, by the name's ending: SVG, or PNG with matplotlib.

    Raises
    ------
    InputError
        If the ending is another one, matplotlib is missing, or the file can't be written.
    """
    series = _series(document)
    x_label, y_label = AXIS_NAMES[document["against"]], cost_name(document)
    check_chart(path)
    content = (_png if path.suffix.lower() == ".png" else _svg)(series, x_label, y_label)
    with atomic_write(path) as file:
        file.write(content)


Series = list[tuple[str, list[float], list[float]]]


def _series(document: dict[str, Any]) -> Series:
    points, against = document["points"], document["against"]
    figure = [float(point[AXES[against]]) for point in points]
    series = [("fitted", figure, [point[cost_name(document)] for point in points])]
    if against == "imbalance" and all(point["held_out"] is not None for point in points):
        held = sorted((point["held_out"]["imbalance_max_over_mean"], point["held_out"]["traffic"]) for point in points)
        series.append(("held out", [x for x, _ in held], [y for _, y in held]))
    return series


def _svg(series: Series, x_label: str, y_label: str) -> bytes:
    chart = line_chart(series, x_label=x_label, y_label=y_label)
    picture = chart[chart.index("<svg") :]  # the caption around it is HTML
    names = ", ".join(f"{name} ({colour})" for (name, _, _), colour in zip(series, ("blue", "red"), strict=False))
    title = f'<text class="title" x="230" y="12" text-anchor="middle">{escape(f"{y_label}: {names}")}</text>'
    head, body = picture.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>{title}{body}\n'.encode()


def _png(series: Series, x_label: str, y_label: str) -> bytes:
    import io

    from matplotlib.figure import Figure

    picture = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = picture.add_subplot()
    for name, x, y in series:
        axes.plot(x, y, marker="o", markersize=4, label=name)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
