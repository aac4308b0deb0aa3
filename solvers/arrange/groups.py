"""Groups that are hard to pack: an exact model of one layer, for where the quick choice of nodes fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem, Termination
from solvers.plans import NoPlanError
from solvers.searching.cp_sat import run_cp_sat
from solvers.searching.search import Search

__all__ = ["conform_with_groups"]

EFFORT = 20_000_000  # work: some 20 s, after which a layer of groups that nearly don't fit is given up


def conform_with_groups(
    problem: Problem, layer: int, wanted: npt.NDArray[np.integer[Any]], search: Search | None = None
) -> npt.NDArray[np.int32]:
    """Return the row (1, S) that keeps pins, exclusions, groups and slots and leaves the most experts where wanted.

    Parameters
    ----------
    problem : Problem
    layer : int
        Row of the layer.
    wanted : (E,) integers
        Wanted GPU of each expert.
    search : Search, optional
        Its seed counts, and cancelling it ends this.

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
    # Time and work of the search don't end it: without an arrangement there is no plan at all.
    cancelled = None if search is None else (lambda: search.limit == "cancelled")
    found = run_cp_sat(model, search, work=EFFORT, until=cancelled)
    if not found.found:
        how = "exists" if found.status == "infeasible" else "was found"
        detail = f"No arrangement of layer {layer_id} that keeps the pins, exclusions, groups and slots {how}."
        limit = None if search is None else search.limit
        raise NoPlanError(Termination(reason="no_plan", limit=limit, detail=detail))
    row = np.full((1, problem.num_slots), -1, np.int32)
    for g in range(G):
        here = [e for e in range(E) if allowed[e, g] and found.holds(held[e][g])]
        first = g * problem.slots_per_gpu
        row[0, first : first + len(here)] = here
    return row
