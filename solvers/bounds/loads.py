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
    less what other relaxations of the same layers take of it. With a load quantile the load that counts is larger than
    the expected one, so the rows hold.

    Where the cap can't be kept, the load terms' own bound has an excess F already. The rows then ask for the least
    largest load z instead: where some GPU is above z, loads above z add up to at most the excess, less ``z - cap``;
    that is, to what the excess has above F, and ``F - (z - cap)``, which is `counted`.

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
    caps, weight = problem.load_caps, problem.objective.load_excess_weight
    if caps is None or not weight or problem.capacity.sum() > problem.num_experts:
        return None
    span = slice(layers.start, layers.stop)
    load = np.zeros((len(layers), level.blocks * level.room))
    load[:, : problem.num_experts] = problem.relative_load[span] / level.fair
    # A layer without a cap: nothing is above the load of all experts together, and exceeding that costs nothing.
    capped = np.isfinite(caps[span])
    cap = np.where(capped, caps[span], 1 / level.fair)
    reached = np.maximum(cap, problem.least_max_load[span])
    counted = np.maximum(0.0, problem.least_load_excess[span] - (reached - cap)) * capped
    price = weight / problem.num_layers / share * capped
    return LoadRows(load=load, cap=reached, price=price, counted=counted)
