"""Groups that are hard to pack: an exact model of one layer, for where the quick choice of nodes fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem, Termination
from solvers.searching.solution import NoPlanError

__all__ = ["conform_with_groups"]

EFFORT = 20.0  # CP-SAT's deterministic time, about seconds


def conform_with_groups(problem: Problem, layer: int, wanted: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int32]:
    """Return the row (1, S) that keeps pins, exclusions, groups and slots and leaves the most experts where wanted.

    Parameters
    ----------
    problem : Problem
    layer : int
        Row of the layer.
    wanted : (E,) integers
        Wanted GPU of each expert.

    Raises
    ------
    NoPlanError
        If there is no such row, or none was found within the effort.
    """
    from ortools.sat.python import cp_model

    layer_id = int(problem.profile.layer_ids[layer])
    E, G, node = problem.num_experts, problem.num_gpus, problem.topology.node_of_gpu
    pinned, allowed = problem.pinned[layer], problem.allowed[layer]
    model = cp_model.CpModel()
    held = [[model.new_bool_var("") if allowed[e, g] else 0 for g in range(G)] for e in range(E)]
    for e in range(E):
        for g in np.flatnonzero(pinned[e]).tolist():
            model.add(held[e][g] == 1)
        model.add(sum(held[e]) == max(1, int(pinned[e].sum())))
    for g in range(G):
        model.add(sum(held[e][g] for e in range(E)) <= int(problem.capacity[g]))
    for group in problem.constraints.groups:
        if group.layer_id in (None, layer_id):
            home = [model.new_bool_var("") for _ in range(problem.topology.num_nodes)]
            model.add_exactly_one(home)
            for e in group.experts:
                for g in range(G):
                    model.add(held[e][g] <= home[node[g]])
    model.maximize(sum(held[e][int(wanted[e])] for e in range(E)))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1  # the same row every time
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = EFFORT
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        how = "exists" if status == cp_model.INFEASIBLE else "was found"
        detail = f"No arrangement of layer {layer_id} that keeps the pins, exclusions, groups and slots {how}."
        raise NoPlanError(Termination(reason="no_plan", detail=detail))
    row = np.full((1, problem.num_slots), -1, np.int32)
    for g in range(G):
        here = [e for e in range(E) if allowed[e, g] and solver.boolean_value(held[e][g])]
        first = g * problem.slots_per_gpu
        row[0, first : first + len(here)] = here
    return row
