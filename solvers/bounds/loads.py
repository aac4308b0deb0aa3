"""A load cap as rows of a relaxation."""

from __future__ import annotations

import numpy as np

from placement import Problem
from placement.bounds import Level
from solvers.bounds.relaxation import LoadRows

__all__ = ["load_rows"]


def load_rows(problem: Problem, layers: range, level: Level, share: float) -> LoadRows | None:
    """Return the load cap as rows of a relaxation of some layers; None without a cap, and where copies share a load.

    The load of a block, relative to its fair share, exceeds the cap by no more than its GPUs together exceed it.
    Relative to the largest fair share it is smaller still.

    The cap is soft: exceeding it costs `load_excess_weight`. So the rows' multipliers may be as large as that price,
    less what other relaxations of the same layers take of it. Where the cap can't be kept, the price is in the load
    terms' own bound already. With a load quantile the load that counts is larger than the expected one, so the rows
    hold.

    Parameters
    ----------
    problem : Problem
    layers : range
        Rows of the profile.
    level : Level
        Blocks of GPUs.
    share : float
        Value of a unit of the relaxation's weight in the objective, times the relaxations that share a layer's price.
    """
    cap, weight = problem.constraints.load_cap, problem.objective.load_excess_weight
    if cap is None or not weight or problem.capacity.sum() > problem.num_experts:
        return None
    span = slice(layers.start, layers.stop)
    load = np.zeros((len(layers), level.blocks * level.room))
    load[:, : problem.num_experts] = problem.relative_load[span] / level.fair
    kept = problem.least_max_load[span] <= cap
    return LoadRows(load=load, cap=cap, price=np.where(kept, weight / problem.num_layers / share, 0.0))
