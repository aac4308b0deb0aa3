"""ExFlow's integer programmes by CP-SAT, in this process: it stops when the search does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.methods.exflow.program import Effort, Found, renamable
from solvers.searching.cp_sat import run_cp_sat
from solvers.searching.search import Search

__all__ = ["solve_with_cp_sat"]

Ints = npt.NDArray[np.int64]


def solve_with_cp_sat(search: Search, affinity: Ints, step: dict[str, Any], start: Ints, effort: Effort) -> Found:
    """Minimise the pairs that cross: the same rows as PuLP's, as clauses; `start` is its hint.

    Parameters
    ----------
    search : Search
    affinity : (L-1, n, n) int64
    step : dict
        The fields of a `solvers.methods.exflow.steps.Step`.
    start : (L, n) int64
    effort : Effort

    Returns
    -------
    status : {"optimal", "feasible", "none"}
    part : (L, n) int64
        `start` without a solution.
    """
    from ortools.sat.python import cp_model

    layers, experts, parts = range(len(affinity) + 1), range(affinity.shape[1]), range(len(step["parts"]))
    model = cp_model.CpModel()
    x = [[[model.new_bool_var("") for _ in parts] for _ in experts] for _ in layers]
    for layer in layers:
        for i in experts:
            model.add_exactly_one(x[layer][i])
            for g in parts:
                model.add_hint(x[layer][i][g], int(start[layer, i] == g))
        for g, low, high in zip(parts, step["low"], step["high"], strict=True):
            model.add_linear_constraint(sum(x[layer][i][g] for i in experts), low, high)
    pairs = np.argwhere(affinity > 0).tolist()
    crossing = {(layer, i, j): model.new_bool_var("") for layer, i, j in pairs}
    for (layer, i, j), crosses in crossing.items():
        for g in parts:
            model.add_bool_or(crosses, ~x[layer][i][g], x[layer + 1][j][g])
            model.add_bool_or(crosses, x[layer][i][g], ~x[layer + 1][j][g])
    # Implied, and what its bound lives on: an expert shares its part with at most max(high) experts of the next layer.
    for layer in layers[:-1]:
        for i in experts:
            for ends in ([(layer, i, j) for j in experts], [(layer, j, i) for j in experts]):
                model.add(sum(crossing.get(pair, 1) for pair in ends) >= len(experts) - max(step["high"]))
    if renamable(step):
        for i in experts:
            for g in parts[i + 1 :]:
                model.add(x[0][i][g] == 0)
    model.minimize(sum(int(affinity[pair]) * crosses for pair, crosses in crossing.items()))
    found = run_cp_sat(
        model,
        search,
        work=effort.work,
        parallel=True,
        until=lambda: search.done or (effort.left is not None and effort.left <= 0),
    )
    if not found.found:
        return "none", start
    held = np.array([[[found.holds(x[layer][i][g]) for g in parts] for i in experts] for layer in layers])
    return "optimal" if found.status == "optimal" else "feasible", held.argmax(axis=2)
