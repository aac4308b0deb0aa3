"""A front's figures on the tokens that it was fitted to and on those held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from placement import Evaluation, Problem
from solvers.fronts.pareto import cheapest_within
from solvers.fronts.points import Front, FrontPoint
from solvers.judging.replays import replay_as_planned
from traces import Trace

__all__ = ["POINT_FIGURES", "cost_name", "front_document", "judge_front", "pick"]

POINT_FIGURES = (
    "traffic",
    "imbalance",
    "worst_layer",
    "slots_per_gpu",
    "redundant_experts",
    "extra_bytes",
    "moved_experts",
    "moved_bytes",
    "lost_experts",
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

Verdicts = list[dict[str, Evaluation]]


def judge_front(problem: Problem, parts: Mapping[str, Trace], front: Front, *, workers: int | None = None) -> Verdicts:
    """Replay each part that has tokens through the plan of each point: per point, part and evaluation."""
    return [
        {
            name: replay_as_planned(point.plan, trace, problem.topology, problem.objective, workers=workers)
            for name, trace in parts.items()
        }
        for point in front.points
    ]


def front_document(problem: Problem, front: Front, verdicts: Verdicts, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the JSON-ready front: the points with their fitted figures, and those of each part's tokens."""
    knee = front.knee
    tokens = {name: found.tokens for name, found in verdicts[0].items()}
    return {
        "against": front.against,
        "traffic_unit": problem.objective.traffic_unit,
        "topology": problem.topology.name,
        "load_cap": problem.constraints.load_cap,
        "tokens": {"fit": tokens.get("fit"), "held_out": tokens.get("held_out")},
        "knee": front.points.index(knee),
        "points": [_point(point, parts) for point, parts in zip(front.points, verdicts, strict=True)],
        "elapsed_s": front.elapsed_s,
        "stopped": front.stopped,
        "notes": list(notes),
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
    return cheapest_within(
        [point["imbalance"] for point in points], [point[cost_name(front)] for point in points], wish
    )


def cost_name(document: dict[str, Any]) -> str:
    """Return the name of the figure that a front's figure is weighed against."""
    return "traffic" if document["against"] == "imbalance" else "score"
