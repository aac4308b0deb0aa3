"""Dispatch without deduplication: traffic is linear in the placement, so its least value is an assignment per layer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.bounds import load_floor, lower_bound
from placement.cost.shares import home_share
from solvers.searching.search import Search

__all__ = ["least_assignment_traffic"]

Array = npt.NDArray[np.float64]


def least_assignment_traffic(problem: Problem, search: Search) -> float:
    """Return a lower bound of the traffic term, unweighted.

    With one replica of each expert it is the optimum of traffic alone: expert e on GPU g costs ``sum_h load[e] w[e,h]
    d[h,g]``, and experts go to slots at the least sum. With room for replicas, the instant bound.

    Parameters
    ----------
    problem : Problem
        Dispatch with `dedup` none and a weight of traffic.
    search : Search
        Layers that it leaves no time for count with the cheapest GPU of each expert.
    """
    from scipy.optimize import linear_sum_assignment

    instant = (lower_bound(problem) - load_floor(problem)) / problem.objective.traffic_weight
    if problem.capacity.sum() > problem.num_experts:
        return instant
    load, hop = problem.profile.load, problem.topology.hop_cost
    homes = home_share(problem)
    least = 0.0
    for layer, row in enumerate(load):
        called: Array = np.full((len(row), 1), 1 / len(hop)) * np.ones(len(hop)) if homes is None else homes[layer]
        cost = row[:, None] * (called @ hop)
        if search.done:
            least += float(cost.min(axis=1).sum())
            continue
        by_slot = np.repeat(cost, problem.capacity, axis=1)
        expert, slot = linear_sum_assignment(by_slot)
        least += float(by_slot[expert, slot].sum())
    return max(instant, least / float(load.sum()))
