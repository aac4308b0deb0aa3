"""Survival beside pins, exclusions and groups: an exact model of one layer, as paths alone can't keep them all.

Without groups and losses it is a flow of copies from experts over failure domains to GPUs, of which the linear
relaxation has whole solutions, so that the search for one ends at its root.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem, Termination
from solvers.plans import NoPlanError
from solvers.survival.effort import Effort, OutOfEffortError
from solvers.survival.rule import alive_of

__all__ = ["has_more_rules", "kept_exactly"]

OPTIMAL, INFEASIBLE = 0, 2  # of SciPy's `milp`
UNCLOCKED = Effort()


def has_more_rules(problem: Problem) -> bool:
    """Whether other rules than survival and slots say where experts may be."""
    constraints = problem.constraints
    return bool(constraints.pins or constraints.forbidden or constraints.groups)


def kept_exactly(
    problem: Problem, layer: int, row: npt.NDArray[np.integer[Any]], effort: Effort = UNCLOCKED
) -> npt.NDArray[np.int32]:
    """Return the row (S,) that survives, keeps pins, exclusions and groups, and is nearest to a given one.

    Out of nodes or time, the nearest that was found so far.

    Parameters
    ----------
    problem : Problem
        Where something has to survive.
    layer : int
        Row of the layer.
    row : (S,) integers
        What is wanted; it may break any rule. One that keeps them all comes back as it is.
    effort : Effort
        Nodes are limited without one as well.

    Raises
    ------
    NoPlanError
        If there is no such row, which is proven.
    OutOfEffortError
        If none was found in the effort allowed, or the search is cancelled.
    """
    if _keeps_all(problem, layer, row):
        return np.array(row, np.int32)
    rows = effort.rows if effort.rows is not None and effort.rows.problem is problem else None
    key = (layer, np.asarray(row, np.int32).tobytes())
    if rows is not None and key in rows.known:
        if (known := rows.known[key]) is None:
            raise OutOfEffortError(_missed(problem, layer, "was found in the effort allowed"))
        return known.copy()
    left = effort.left_s
    if effort.stopped():
        raise OutOfEffortError(_missed(problem, layer, "was found before the search was cancelled"))
    if left == 0.0:
        effort.on_clock()
        raise OutOfEffortError(_missed(problem, layer, "was found in time"))
    from solvers.survival.model import (
        solved,
    )  # SciPy's solvers take longer to load than all that a search needs

    found = solved(problem, layer, _on_gpus(problem, row), left)
    if found.status == INFEASIBLE:
        detail = _missed(problem, layer, "exists")
        raise NoPlanError(Termination(reason="no_plan", detail=detail))
    clocked = found.status != OPTIMAL and effort.left_s == 0.0
    kept = None if found.x is None else _row_of(problem, found.x)
    if kept is not None and not _keeps_all(problem, layer, kept):
        kept = None  # cut short, what the library had may be rounded
    if clocked:
        effort.on_clock()
    elif rows is not None:
        rows.keep(key, None if kept is None else kept.copy())
    if kept is None:
        raise OutOfEffortError(_missed(problem, layer, "was found in the effort allowed"))
    return kept


def _row_of(problem: Problem, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    E, G = problem.num_experts, problem.num_gpus
    held = values[: E * G].reshape(E, G) > 0.5
    kept = np.full((G, problem.slots_per_gpu), -1, np.int32)
    for gpu, own in enumerate(held.T):
        here = np.flatnonzero(own)[: problem.slots_per_gpu]
        kept[gpu, : len(here)] = here
    return kept.ravel()


def _on_gpus(problem: Problem, row: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
    """Return which expert is on which GPU, (E, G)."""
    held = np.zeros((problem.num_experts, problem.num_gpus), bool)
    slot = np.flatnonzero(row >= 0)
    held[row[slot], slot // problem.slots_per_gpu] = True
    return held


def _keeps_all(problem: Problem, layer: int, row: npt.NDArray[np.integer[Any]]) -> bool:
    """Whether a row keeps every rule of its layer: places, slots, pins, groups, survival, no expert twice on a GPU."""
    held = _on_gpus(problem, row)
    if not held.any(axis=1).all() or held.sum() != (row >= 0).sum() or (held.sum(axis=0) > problem.capacity).any():
        return False
    if (held & ~(problem.allowed[layer] | problem.pinned[layer])).any() or (problem.pinned[layer] & ~held).any():
        return False
    node, layer_id = problem.topology.node_of_gpu, int(problem.profile.layer_ids[layer])
    for group in problem.constraints.groups:
        if group.layer_id in (None, layer_id):
            on = held[list(group.experts)].any(axis=0)
            if len(np.unique(node[on])) > 1:
                return False
    return not alive_of(row, problem.sizes.survival, problem.num_experts, problem.slots_per_gpu).over[0]


def _missed(problem: Problem, layer: int, how: str) -> str:
    layer_id = int(problem.profile.layer_ids[layer])
    what = f"No arrangement of layer {layer_id} that survives what it should and keeps pins, exclusions and groups"
    return f"{what} {how}."
