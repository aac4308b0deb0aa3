"""A front's figures on the tokens that it was fitted to and on those held out, and its chart."""

from __future__ import annotations

import importlib.util
from html import escape
from pathlib import Path
from typing import Any

from api.planning import Prepared
from api.report.charts import line_chart
from placement import Evaluation, Plan, evaluate
from placement.replay.choices import choices_of
from solvers import Front, FrontPoint
from solvers.fronts.pareto import AXES, cheapest_within
from traces import InputError
from traces.support.atomic import atomic_write

__all__ = ["CHART_FORMATS", "POINT_FIGURES", "check_chart", "front_document", "measure_front", "pick", "write_chart"]

POINT_FIGURES = (
    "traffic",
    "imbalance",
    "worst_layer",
    "slots_per_gpu",
    "redundant_experts",
    "extra_bytes",
    "moved_experts",
    "moved_bytes",
)
TOKEN_FIGURES = (
    "tokens",
    "traffic",
    "imbalance_max_over_mean",
    "cross_gpu_fraction",
    "cross_node_fraction",
    "fanout_gpus",
    "fanout_nodes",
    "remote_gpus",
    "remote_nodes",
    "activated_experts",
)
CHART_FORMATS = (".svg", ".png")
AXIS_NAMES = {
    "imbalance": "busiest GPU / mean, mean over layers",
    "replicas": "slots per GPU",
    "bytes_moved": "expert replicas moved",
}
STYLE = (
    ".grid{stroke:#ddd}.tick,.label,.title{font:11px sans-serif;fill:#444}.line{fill:none;stroke-width:1.8}"
    ".line.s0{stroke:#1f6fb2}.dot.s0{fill:#1f6fb2}.line.s1{stroke:#c8553d}.dot.s1{fill:#c8553d}"
)

Verdicts = list[dict[str, Evaluation]]


def measure_front(prepared: Prepared, front: Front, *, workers: int | None = None) -> Verdicts:
    """Replay each part that has tokens through the plan of each point: per point, part and evaluation."""
    return [{name: _replay(prepared, point.plan, name, workers) for name in prepared.parts} for point in front.points]


def _replay(prepared: Prepared, plan: Plan, part: str, workers: int | None) -> Evaluation:
    problem = prepared.problem
    return evaluate(plan, prepared.parts[part], problem.topology, **choices_of(problem.objective), workers=workers)


def front_document(prepared: Prepared, front: Front, verdicts: Verdicts) -> dict[str, Any]:
    """Return the JSON-ready front: the points with their fitted figures, and those of each part's tokens."""
    knee = front.knee
    tokens = {name: found.tokens for name, found in verdicts[0].items()}
    return {
        "against": front.against,
        "traffic_unit": prepared.problem.objective.traffic_unit,
        "topology": prepared.problem.topology.name,
        "load_cap": prepared.problem.constraints.load_cap,
        "tokens": {"fit": tokens.get("fit"), "held_out": tokens.get("held_out")},
        "knee": front.points.index(knee),
        "points": [_point(point, parts) for point, parts in zip(front.points, verdicts, strict=True)],
        "elapsed_s": front.elapsed_s,
        "stopped": front.stopped,
        "notes": list(prepared.notes),
    }


def _point(point: FrontPoint, parts: dict[str, Evaluation]) -> dict[str, Any]:
    figures = {name: {key: getattr(found, key) for key in TOKEN_FIGURES} for name, found in parts.items()}
    return (
        {"score": point.score.total}
        | {name: getattr(point, name) for name in POINT_FIGURES}
        | {
            "made_with": point.plan.provenance.get("front"),
            "found_by": point.plan.provenance.get("found_by"),
            "warnings": list(point.plan.warnings),
            "fit": figures.get("fit"),
            "held_out": figures.get("held_out"),
        }
    )


def pick(front: Front | dict[str, Any], wish: str | float) -> int:
    """Return the number of the point that is wanted.

    Parameters
    ----------
    front : Front or dict
        Or its document.
    wish : str or float
        ``"knee"``, or the cheapest point with at most this imbalance on the fitted profile.

    Raises
    ------
    InputError
        If the wish is no imbalance.
    NoPlanError
        If no point keeps it.
    """
    if isinstance(front, Front):
        if isinstance(wish, str):
            return front.points.index(front.knee)
        return front.points.index(front.obeying(wish))
    if isinstance(wish, str):
        return int(front["knee"])
    points = front["points"]
    return cheapest_within([point["imbalance"] for point in points], [point[_cost(front)] for point in points], wish)


def _cost(document: dict[str, Any]) -> str:
    """Return the name of the figure that a front's figure is weighed against."""
    return "traffic" if document["against"] == "imbalance" else "score"


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
    x_label, y_label = AXIS_NAMES[document["against"]], _cost(document)
    check_chart(path)
    content = (_png if path.suffix.lower() == ".png" else _svg)(series, x_label, y_label)
    with atomic_write(path) as file:
        file.write(content)


Series = list[tuple[str, list[float], list[float]]]


def _series(document: dict[str, Any]) -> Series:
    points, against = document["points"], document["against"]
    figure = [float(point[AXES[against]]) for point in points]
    series = [("fitted", figure, [point[_cost(document)] for point in points])]
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
