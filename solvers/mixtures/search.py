"""Weights of the domains raised and lowered until no domain is worse off than the others: multiplicative weights.

References
----------
Arora, Hazan and Kale, The multiplicative weights update method, Theory of Computing 8 (2012), section 3.2: a player
against the worst of several costs. The searches are heuristics here, so the best plan that is met is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem
from solvers.mixtures.domains import Domain
from solvers.mixtures.judging import replay_groups
from solvers.mixtures.request import MixtureRequest
from solvers.mixtures.weighing import mixed
from solvers.solving.solving import solve

__all__ = ["FitCosts", "Round", "fit_costs", "search_mixture", "silent", "target_of"]

Floats = npt.NDArray[np.float64]
STEP = 1.0  # of the logarithm of a weight between the best and the worst domain, in the first round; chosen by trial
LEAST_WEIGHT = 0.02  # of a domain: its tokens still count


def silent(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """One search: the weights that it was made with, its plan, and what that costs.

    Attributes
    ----------
    weights : (D,) float64
    plan : Plan
    fitted : (D,) float64
        What it costs on the tokens to fit.
    costs : (D,) float64
        The same, hedged; see `fit_costs`.
    target : float
        What is minimised, of these.
    """

    weights: Floats
    plan: Plan
    fitted: Floats
    costs: Floats
    target: float


@dataclass(frozen=True, kw_only=True, eq=False)
class FitCosts:
    """What a plan costs on each domain's tokens to fit.

    Attributes
    ----------
    fitted : (D,) float64
        The objective without the weight of the spread.
    hedged : (D,) float64
        With it; see `GroupCosts.hedged`. A domain of few sequences promises less about others.
    """

    fitted: Floats
    hedged: Floats


def target_of(costs: Floats, weights: Floats, request: MixtureRequest) -> Floats:
    """Return what is minimised, (...): of costs (..., D) and the domains' weights (D,)."""
    if request.over == "worst":
        worst: Floats = costs.max(axis=-1)
        return worst
    if request.over == "weighted":
        mean: Floats = costs @ (weights / weights.sum())
        return mean
    assert request.quantile is not None
    order = np.argsort(costs, axis=-1)
    reached = np.cumsum(np.take(weights / weights.sum(), order), axis=-1) >= request.quantile - 1e-12
    first = reached.argmax(axis=-1)[..., None]
    value: Floats = np.take_along_axis(np.take_along_axis(costs, order, axis=-1), first, axis=-1)[..., 0]
    return value


def fit_costs(problem: Problem, plans: Sequence[Plan], domains: Sequence[Domain]) -> list[FitCosts]:
    """Return what each plan costs on the tokens to fit; every domain is read once."""
    # What groups of sequences do is megabytes per plan and domain: no longer held than its figures take.
    pairs = [
        [(float(each.cost()[0]), each.hedged()) for each in replay_groups(problem, plans, domain.fit)]
        for domain in domains
    ]
    figures = np.array(pairs).reshape(len(domains), len(plans), 2)
    return [FitCosts(fitted=figures[:, number, 0], hedged=figures[:, number, 1]) for number in range(len(plans))]


def search_mixture(
    domains: Sequence[Domain],
    problem: Problem,
    request: MixtureRequest,
    weights: Floats,
    *,
    workers: int | None = None,
    tell: Callable[[str], None] = silent,
) -> tuple[Round, ...]:
    """Search for plans of the mixture, each with the weights that the last one's costs ask for.

    Parameters
    ----------
    domains : sequence of Domain
    problem : Problem
        Of any profile of these sizes: what it says but its profile counts.
    request : MixtureRequest
    weights : (D,) float64
        To begin with; they sum to 1.
    workers : int, optional
    tell : callable, optional
        Called with what is done.

    Returns
    -------
    tuple of Round
        In their order; a weighted mean needs one.
    """
    profiles = [domain.profile for domain in domains]
    constraints = replace(problem.constraints, load_groups="sources")
    rounds: list[Round] = []
    now = weights.copy()
    count = 1 if request.over == "weighted" else request.rounds
    for number in range(count):
        tell(f"searching: round {number + 1} of {count}")
        asked = replace(problem, profile=mixed(profiles, now), constraints=constraints)
        found = solve(
            asked,
            request.solver,
            limits=request.limits,
            seed=request.seed + number,
            workers=workers,
            options=dict(request.options),
        )
        [known] = fit_costs(problem, [found.plan], domains)
        costs = known.hedged
        target = float(target_of(costs, weights, request))
        rounds.append(Round(weights=now, plan=found.plan, fitted=known.fitted, costs=costs, target=target))
        pressing = np.where(costs <= target, costs, costs.min())  # above a quantile, a domain is given up
        gap = pressing.max() - pressing.min()
        if gap <= 0:
            break
        now = now * np.exp(STEP / np.sqrt(number + 1) * (pressing - pressing.min()) / gap)
        now = np.maximum(now / now.sum(), LEAST_WEIGHT)
        now = now / now.sum()
    return tuple(rounds)
