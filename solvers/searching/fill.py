"""Empty slots filled with replicas, for engines that want an expert in every slot."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.survival.effort import Effort
from solvers.survival.exact import UNCLOCKED
from solvers.survival.repair import kept_alive

__all__ = ["completed", "fill_slots"]


def completed(problem: Problem, table: npt.NDArray[np.integer], effort: Effort = UNCLOCKED) -> npt.NDArray[np.integer]:
    """Return a map with the copies that something needs to survive, and full where the problem wants that.

    Parameters
    ----------
    problem : Problem
    table : (L, S) integers
        -1 is an empty slot.
    effort : Effort
        What an exact repair may cost.

    Raises
    ------
    OutOfEffortError
        If it was not enough.
    """
    if problem.sizes.survival is not None:
        table = kept_alive(problem, table, effort)
    return fill_slots(problem, table) if problem.full_slots and (table < 0).any() else table


def fill_slots(problem: Problem, table: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """Return a map with a replica in every slot that a GPU has: of the expert with the largest load per replica.

    A slot stays empty where the constraints let no expert be there a second time.

    Parameters
    ----------
    problem : Problem
    table : (L, S) integers
        -1 is an empty slot.

    Returns
    -------
    (L, S) int32
    """
    filled = np.array(table, dtype=np.int32)
    slots = problem.slots_per_gpu
    for layer in np.flatnonzero((filled < 0).any(axis=1)):
        row = filled[layer]
        replicas = np.bincount(row[row >= 0], minlength=problem.num_experts)
        may = _may_be_on(problem, int(layer), row)
        for gpu in range(problem.num_gpus):
            own = row[gpu * slots : (gpu + 1) * slots]
            room = int(problem.capacity[gpu] - (own >= 0).sum())
            for slot in np.flatnonzero(own < 0)[:room]:
                here = may[:, gpu].copy()
                if problem.constraints.distinct_replicas:
                    here[own[own >= 0]] = False
                if not here.any():
                    break
                chosen = int(np.argmax(np.where(here, problem.relative_load[layer] / replicas, -1.0)))
                own[slot] = chosen
                replicas[chosen] += 1
    return filled


def _may_be_on(problem: Problem, layer: int, row: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Return whether a replica of an expert may be on a GPU, (E, G): exclusions, and groups stay on their node."""
    may: npt.NDArray[np.bool_] = problem.allowed[layer].copy()
    node = problem.topology.node_of_gpu
    for group in problem.constraints.groups:
        rows = problem.rows_of(group)
        if isinstance(rows, int) and rows != layer:
            continue
        member = np.flatnonzero(row == group.experts[0])[0]
        elsewhere = node != node[member // problem.slots_per_gpu]
        may[np.array(group.experts)[:, None], np.flatnonzero(elsewhere)] = False
    return may
