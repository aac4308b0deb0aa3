"""Where searches start that fill all slots: EPLB's plan, where it applies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.arrange.conform import separate_replicas
from solvers.arrange.in_order import in_order
from solvers.methods.eplb.solver import Eplb
from solvers.searching.search import Search
from solvers.survival.repair import alive_by_load

__all__ = ["base_plan", "eplb_apart"]

Table = npt.NDArray[np.int32]


def base_plan(problem: Problem, search: Search) -> Table:
    """Return the map (L, S) to start from: EPLB's where it applies, one that survives what it has to, or in order."""
    if problem.sizes.survival is not None:
        return alive_by_load(problem, search.effort)
    return eplb_apart(problem, Eplb()) if Eplb().supports(problem) is None else in_order(problem, search)


def eplb_apart(problem: Problem, eplb: Eplb) -> Table:
    """Return EPLB's map (L, S) with second replicas moved to other GPUs."""
    table: npt.NDArray[np.integer[Any]] = eplb.table(problem)
    return separate_replicas(table, problem.profile.load, problem.num_gpus)
