"""A load cap as rows of a relaxation."""

from __future__ import annotations

import numpy as np

from placement import Problem
from solvers.bounds.relaxation import LoadRows

__all__ = ["load_rows"]


def load_rows(problem: Problem, layers: range, blocks: int, slots: int, share: float) -> LoadRows | None:
    """Return the load cap as rows of a relaxation of some layers; None without a cap, and where copies share a load.

    The cap is soft: exceeding it costs `load_excess_weight`. So the rows' multipliers may be as large as that price,
    less what other relaxations of the same layers take of it. Where the cap can't be kept, the price is in the load
    terms' own bound already.

    Parameters
    ----------
    problem : Problem
    layers : range
        Rows of the profile.
    blocks, slots : int
        Blocks (GPUs or nodes) and their slots per layer.
    share : float
        Value of a unit of the relaxation's weight in the objective, times the relaxations that share a layer's price.
    """
    cap, weight = problem.constraints.load_cap, problem.objective.load_excess_weight
    if cap is None or not weight or problem.capacity.sum() > problem.num_experts:
        return None
    fair = problem.topology.fair_share
    if blocks != problem.num_gpus:
        fair = np.bincount(problem.topology.node_of_gpu, weights=fair).astype(np.float64)
    span = slice(layers.start, layers.stop)
    load = np.zeros((len(layers), blocks * slots))
    load[:, : problem.num_experts] = problem.relative_load[span] / fair.max()
    kept = problem.least_max_load[span] <= cap
    return LoadRows(load=load, cap=cap, price=np.where(kept, weight / problem.num_layers / share, 0.0))
