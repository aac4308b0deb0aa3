"""A load cap, or the weight of the largest load, as rows of a relaxation."""

from __future__ import annotations

import numpy as np

from placement import Problem
from placement.cost.bounds import Level
from solvers.bounds.relaxation import LoadRows

__all__ = ["load_rows", "spare_in_layer", "spread_counts", "spread_price_share"]

# Of the prices of imbalance and excess, where rows of loads take the rest: more than enough, by a factor of two, for
# even loads to be what costs least at the default weights (docs/decisions/0031-spread.md).
SPREAD_PRICE_SHARE = 0.2


def spread_counts(problem: Problem) -> bool:
    """Whether the spread has a bound of its own: it has a weight, and GPUs are equally fast.

    Uneven fair shares would need a matrix per kind of GPU. And it must be more than what is tolerated, even if loads
    of experts varied each by itself.
    """
    fair, deviations = problem.topology.fair_share, problem.load_deviations
    if deviations is None or not problem.spread_weight or fair.max() != fair.min():
        return False
    alone = np.sqrt(problem.num_gpus * (deviations**2).sum(axis=(1, 2)))
    return float(alone.mean()) > problem.spread_tolerance


def spread_price_share(problem: Problem) -> float:
    """Return the share of the prices of imbalance and excess that the bound of the spread has; the rows' is the rest.

    Without `load_rows`, that is all.
    """
    if not spread_counts(problem):
        return 0.0
    return 1.0 if spare_in_layer(problem) else SPREAD_PRICE_SHARE


def spare_in_layer(problem: Problem) -> int:
    """Return the most replicas beyond one of each expert that a layer may have: it might take all of a budget."""
    spare = problem.spare_replicas // problem.num_layers
    return spare if problem.replica_budget is None else min(spare, problem.replica_budget)


def load_rows(problem: Problem, layers: range, level: Level, share: float) -> LoadRows | None:
    """Return what loads cost as rows of a relaxation of some layers; None if nothing, and where replicas share a load.

    The load of a block, relative to its fair share, exceeds the cap by no more than its GPUs together exceed it.
    Relative to the largest fair share it is smaller still.

    The cap is soft: exceeding it costs `load_excess_weight`. So the rows' multipliers may be as large as that price,
    less what other relaxations of the same layers take of it. With a load quantile the load that counts is larger than
    the expected one, so the rows hold.

    Where the cap can't be kept, the load terms' own bound has an excess F already. The rows then ask for the least
    largest load z instead: where some GPU is above z, loads above z add up to at most the excess, less ``z - cap``;
    that is, to what the excess has above F, and ``F - (z - cap)``, which is `counted`.

    The weight of the largest load is a price as well, of an excess above the least largest load, which the load terms'
    bound has already, or above the cap, where that is higher. It is paid once per layer, not by each block. The bound
    of the spread has a part of both prices.

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
    objective, caps = problem.objective, problem.load_caps
    span = slice(layers.start, layers.stop)
    capped = np.zeros(len(layers), np.bool_)
    if caps is not None and objective.load_excess_weight:
        capped = np.isfinite(caps[span])
    top = np.full(len(layers), objective.imbalance_weight)
    if spare_in_layer(problem) or not (capped.any() or top.any()):
        return None
    load = np.zeros((len(layers), level.blocks * level.room))
    load[:, : problem.num_experts] = problem.relative_load[span] / level.fair
    least = problem.least_max_load[span]
    cap = least if caps is None else np.where(capped, caps[span], least)
    reached = np.maximum(cap, least)
    # Where excess costs nothing: nothing is above the load of all experts together.
    reached = np.where(capped | (top > 0), reached, 1 / level.fair)
    counted = np.maximum(0.0, problem.least_load_excess[span] - (reached - cap)) * capped
    unit = problem.num_layers * share / (1 - spread_price_share(problem))
    price = np.where(capped, objective.load_excess_weight, 0.0)
    return LoadRows(load=load, cap=reached, price=price / unit, top_price=top / unit, counted=counted)
