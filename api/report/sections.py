"""The charts of a report: layers, traffic, loads, and the search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from api.report.verdict import PARTS
from placement import Problem
from placement.cost.shares import expected_gpu_load
from solvers import Solution
from solvers.judging.comparing import Judged
from solvers.judging.replays import PartFigures
from solvers.plotting.svg import Floats, heat_map, line_chart

__all__ = ["layer_charts", "load_maps", "search_chart", "traffic_maps"]

MAX_CELLS = 72  # GPUs per side of a heat map; above, the nodes are shown


def layer_charts(problem: Problem, measured: Sequence[Judged], part: str) -> str:
    """Return two charts over the layers: what crosses GPUs, and the busiest GPU."""
    charts = []
    context = problem.objective.execution == "context_coherent"
    titles = {
        "cross_gpu_fraction": "Share of pairs that change GPU" if context else "Share of messages that leave their GPU",
        "imbalance_max_over_mean": "Busiest GPU's load over the mean",
    }
    for name, title in titles.items():
        series = []
        for item in measured:
            values = item.parts[part].evaluation.per_layer[name]
            series.append((item.name, problem.profile.layer_ids[: len(values)].tolist(), values))
        if any(len(values) for _, _, values in series):
            include = (1.0,) if name.startswith("imbalance") else ()
            charts.append(line_chart(series, x_label="layer", y_label=title, include=include))
    return f"<h2>Layer by layer, {PARTS.get(part, part)} tokens</h2>{_figures(charts)}"


def traffic_maps(problem: Problem, measured: Sequence[Judged], part: str) -> str:
    """Return a map of the traffic between GPUs for each plan, on one scale."""
    matrices = [_shares(problem, item.parts[part]) for item in measured]
    high = max(float(np.nanmax(matrix, initial=0.0)) for matrix in matrices)
    unit = "GPU" if problem.num_gpus <= MAX_CELLS else "node"
    maps = [
        heat_map(
            matrix,
            caption=f"{item.name}: {np.nansum(matrix):.1f} % of the traffic leaves its {unit}",
            row_label=f"from {unit}",
            column_label=f"to {unit}",
            low=0.0,
            high=high,
        )
        for item, matrix in zip(measured, matrices, strict=True)
    ]
    return f"<h2>Traffic between {unit}s, per cent of all, {PARTS.get(part, part)} tokens</h2>{_figures(maps)}"


def _shares(problem: Problem, found: PartFigures) -> Floats:
    """Return the traffic between GPUs (nodes, if there are many) in per cent, the diagonal NaN."""
    matrix = found.evaluation.traffic_matrix.astype(float)
    if len(matrix) > MAX_CELLS:
        starts = np.flatnonzero(np.r_[True, np.diff(problem.topology.node_of_gpu) != 0])
        matrix = np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)
    shares: Floats = 100 * matrix / max(matrix.sum(), 1.0)
    np.fill_diagonal(shares, np.nan)
    return shares


def load_maps(problem: Problem, measured: Sequence[Judged], part: str | None) -> str:
    """Return a map of the GPUs' loads for each plan, on one scale; expected loads where there are no tokens."""
    loads = []
    for item in measured:
        if part is None:
            loads.append(expected_gpu_load(problem, item.plan.replicas_on_gpu))
        else:
            counts = item.parts[part].evaluation.gpu_load.astype(float)
            loads.append(counts / np.maximum(counts.mean(axis=1, keepdims=True), 1e-12))
    low, high = min(float(load.min()) for load in loads), max(float(load.max()) for load in loads)
    layers = [str(layer) for layer in problem.profile.layer_ids]
    maps = [
        heat_map(
            load,
            caption=f"{item.name}: {load.min():.2f} to {load.max():.2f} times the mean",
            row_label="layer",
            column_label="GPU",
            low=low,
            high=high,
            rows=layers,
        )
        for item, load in zip(measured, loads, strict=True)
    ]
    whose = "expected" if part is None else f"{PARTS.get(part, part)} tokens"
    return f"<h2>Load of every GPU in every layer, {whose}</h2>{_figures(maps)}"


def search_chart(solution: Solution) -> str:
    """Return the score over time; nothing where the search found one plan only."""
    found = [(step.elapsed_s, step.score) for step in solution.history if step.score is not None]
    if len(found) < 2:
        return ""
    series = [("best plan", [time for time, _ in found], [score for _, score in found])]
    return (
        f"<h2>The search</h2>{_figures([line_chart(series, x_label='seconds', y_label='Score', steps=True, colour=1)])}"
    )


def _figures(charts: Sequence[str]) -> str:
    return f'<div class="row">{"".join(f"<figure>{chart}</figure>" for chart in charts)}</div>'
