"""What no plan for a mixture can beat: a lower bound of the worst domain, of a quantile of them, or of the mean.

For weights w of the domains that sum to 1, the worst cost of a plan is at least the mean of its costs. Messages of each
domain cost at least what they cost under the best plan for it alone. The largest load of a mean is at most the mean of
the largest loads, and what is above a cap likewise, so that load terms cost at least those of the mean loads under the
best plan. The largest of these bounds over w is kept; a single domain is a corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem, lower_bound, score
from placement.cost.bounds import load_floor
from placement.loads.least import least_excess, max_load_bound
from solvers.mixtures.request import MixtureRequest
from solvers.mixtures.search import target_of
from traces import Profile

__all__ = ["MixtureBound", "mixture_bound"]

Floats = npt.NDArray[np.float64]
STEPS = (0.5, 0.2, 0.1, 0.05)  # towards the corner of a domain
MOST_REFINED = 32  # domains; of more, corners and the given weights are all that is tried


@dataclass(frozen=True, kw_only=True)
class MixtureBound:
    """What a plan costs where it is worst, and what no plan can beat, on the tokens to fit.

    Attributes
    ----------
    costs : tuple of float
        Of each domain: the score of the plan under its loads and messages alone, without the weight of the spread.
    cost : float
        What is minimised, of these.
    bound : float
        No plan of these slots costs less.
    """

    costs: tuple[float, ...]
    cost: float
    bound: float

    @property
    def gap(self) -> float:
        """How far the cost is above the bound, as a share of the cost."""
        return max(0.0, self.cost - self.bound) / self.cost if self.cost > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {"costs": list(self.costs), "cost": self.cost, "bound": self.bound, "gap": self.gap}


def mixture_bound(
    problem: Problem,
    plan: Plan,
    profiles: Sequence[Profile],
    request: MixtureRequest,
    weights: Floats,
    tried: Sequence[Floats] = (),
) -> MixtureBound:
    """Return the bound of a mixture, and the cost of a plan by the same measure.

    Parameters
    ----------
    problem : Problem
        Of any profile of these sizes.
    plan : Plan
    profiles : sequence of Profile
        Of each domain, the part to fit.
    request : MixtureRequest
        What is minimised.
    weights : (D,) float64
        As asked.
    tried : sequence of (D,) float64
        Further weights to begin with, such as those of the search.
    """
    objective = replace(problem.objective, load_spread_weight=0.0)
    single = [replace(problem, profile=profile, objective=objective) for profile in profiles]
    costs = np.array([score(each, plan).total for each in single])
    bound = _bound(single, request, weights, tried)
    return MixtureBound(costs=tuple(costs.tolist()), cost=float(target_of(costs, weights, request)), bound=bound)


def _bound(single: list[Problem], request: MixtureRequest, weights: Floats, tried: Sequence[Floats]) -> float:
    messages = np.array([lower_bound(each) - load_floor(each) for each in single])
    loads = np.stack([each.relative_load for each in single])

    def mean(part: Floats) -> float:
        return float(part @ messages) + _load_floor(single[0], np.tensordot(part, loads, 1))

    if request.over == "weighted":
        return mean(weights)
    corners = np.eye(len(single))
    alone = np.array([mean(corner) for corner in corners])
    if request.over == "quantile":  # costs are no lower, one by one, so that no quantile is
        return float(target_of(alone, weights, request))
    even = np.full(len(single), 1 / len(single))
    starts = [even, weights, *tried, corners[alone.argmax()]]
    values = [mean(start) for start in starts]
    best, value = starts[int(np.argmax(values))], max(values)
    if len(single) <= MOST_REFINED:
        for step in STEPS:
            for corner in corners:
                moved = (1 - step) * best + step * corner
                if (found := mean(moved)) > value:
                    best, value = moved, found
    return value


def _load_floor(problem: Problem, load: Floats) -> float:
    """Return what the load terms cost at least under these shares of loads, (L, E), in any plan."""
    objective, fair = problem.objective, np.asarray(problem.topology.fair_share, np.float64)
    capacity = np.asarray(problem.capacity, np.int64)
    floor = objective.imbalance_weight * float((max_load_bound(load, capacity, fair) - 1).mean())
    if (caps := problem.load_caps) is not None:
        floor += objective.load_excess_weight * float(least_excess(load, capacity, fair, caps).mean())
    return floor
