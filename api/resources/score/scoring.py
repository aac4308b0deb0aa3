"""Score analyses: from a stored plan to `placement.cost.breakdown`, which runs in a helper process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from api.resources.requests import request_of
from api.resources.schemas import PlanBody
from api.resources.traces.stored import StoredTrace
from placement import Plan, Problem
from placement.cost.breakdown import Breakdown, break_down
from placement.cost.feasibility import load_cap_misses
from placement.plan.termination import gap_of
from solvers import Study

__all__ = ["ScoreTask", "score_of"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ScoreTask:
    """Everything that an analysis needs; pickles.

    Attributes
    ----------
    plan : mapping
        Content of the plan file.
    request : mapping
        The body that the plan was asked for with.
    layer : int or None
        Model layer whose flows are shown; None for the one with most traffic.
    top : int
        Most experts, pairs and replicas to name.
    trace : StoredTrace
    workers : int or None
        Threads; None for all cores.
    """

    plan: Mapping[str, Any]
    request: Mapping[str, Any]
    layer: int | None
    top: int
    trace: StoredTrace
    workers: int | None


def score_of(task: ScoreTask) -> dict[str, Any]:
    """Count the profile that the plan was made from, and take its score apart.

    Returns
    -------
    dict
        The fields of `api.resources.score.answers.ScoreAnalysis` but ``plan``.

    Raises
    ------
    InputError
        If the stored file can't be read any more.
    """
    request = request_of(PlanBody.model_validate(task.request), math.inf)
    study = Study.of(task.trace.open(), request=request, workers=task.workers)
    problem, plan = study.problem, Plan.from_dict(task.plan)
    found = break_down(problem, plan.physical_to_logical_map, task.top)
    score, layer_ids = found.score.total, problem.profile.layer_ids.tolist()
    following = [*layer_ids[1:], None] if _is_chain(problem) else [None] * len(layer_ids)
    return {
        "execution": problem.objective.execution,
        "score": score,
        "bound": plan.bound,
        "gap": gap_of(score, plan.bound),
        "terms": [asdict(term) | {"cost": term.weight * term.value} for term in found.score.terms],
        "layers": _layers(problem, found, layer_ids, following),
        "gpu_load": found.load.tolist(),
        "traffic": _traffic(problem, found, layer_ids, following, task.layer),
        "experts": [_named(item, layer_ids) for item in found.experts],
        "pairs": [_named(item, layer_ids) | {"next_layer_id": layer_ids[item.layer + 1]} for item in found.pairs],
        "replicas": [_named(item, layer_ids) for item in found.replicas],
        "warnings": load_cap_misses(problem, plan.physical_to_logical_map),
        "notes": list(study.notes),
    }


def _is_chain(problem: Problem) -> bool:
    return problem.objective.execution == "context_coherent"


def _layers(
    problem: Problem, found: Breakdown, layer_ids: list[int], following: list[int | None]
) -> list[dict[str, Any]]:
    rows, caps = len(found.flow), problem.load_caps
    node = problem.topology.node_of_gpu
    sent = np.maximum(found.flow.sum(axis=(1, 2)), np.finfo(float).tiny)
    leaves_gpu = 1 - np.trace(found.flow, axis1=1, axis2=2) / sent
    leaves_node = (found.flow * (node[:, None] != node)).sum(axis=(1, 2)) / sent
    return [
        {
            "layer_id": layer_id,
            "next_layer_id": following[row],
            "traffic": float(found.score.traffic_by_layer[row]) if row < rows else None,
            "traffic_bound": float(found.least_traffic[row]) if row < rows else None,
            "leaves_gpu": max(0.0, float(leaves_gpu[row])) if row < rows else None,
            "leaves_node": float(leaves_node[row]) if row < rows else None,
            "max_load": float(found.score.max_load[row]),
            "max_load_bound": float(problem.least_max_load[row]),
            "busiest_gpu": int(found.load[row].argmax()),
            "load_cap": None if caps is None or not np.isfinite(caps[row]) else float(caps[row]),
            "load_excess": float(found.load_excess[row]),
            "load_spread": float(found.load_spread[row]),
        }
        for row, layer_id in enumerate(layer_ids)
    ]


def _traffic(
    problem: Problem, found: Breakdown, layer_ids: list[int], following: list[int | None], layer: int | None
) -> dict[str, Any] | None:
    rows = len(found.flow)
    if not rows:  # of one layer nothing goes on to a next one
        return None
    row = layer_ids.index(layer) if layer is not None else int(found.score.traffic_by_layer.argmax())
    if row >= rows or not (sent := float(found.flow[row].sum())):
        return None
    share = found.flow[row] / sent
    return {
        "layer_id": layer_ids[row],
        "next_layer_id": following[row],
        "gpus": share.tolist(),
        "nodes": _between_nodes(share, problem.topology.node_of_gpu).tolist(),
    }


def _between_nodes(flow: Array, node_of_gpu: npt.NDArray[np.int64]) -> Array:
    starts = np.flatnonzero(np.r_[True, np.diff(node_of_gpu) != 0])
    summed: Array = np.add.reduceat(np.add.reduceat(flow, starts, axis=0), starts, axis=1)
    return summed


def _named(item: Any, layer_ids: list[int]) -> dict[str, Any]:
    """Return the fields, with the model layer in place of the row."""
    fields = asdict(item)
    return {"layer_id": layer_ids[fields.pop("layer")], **fields}
