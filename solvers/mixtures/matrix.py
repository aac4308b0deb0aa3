"""The held-out matrix: what plans cost on every domain, with intervals on the same draws of sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem
from solvers.mixtures.domains import Domain
from solvers.mixtures.judging import replay_groups
from solvers.mixtures.request import MixtureRequest
from solvers.mixtures.search import target_of
from solvers.mixtures.timing import step_times

__all__ = ["Cell", "PlanRow", "judge_plans"]

Floats = npt.NDArray[np.float64]
DRAWS = 500  # of the bootstrap
LEVEL = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A plan on the tokens of a domain that were held out.

    Attributes
    ----------
    cost : float
        The objective, without the weight of the spread.
    low, high : float
        95 % interval, by a bootstrap over groups of sequences.
    fit : float
        The same on the tokens that were fitted.
    imbalance : float
        Largest GPU load over the mean, mean over layers.
    traffic : float
        The objective's traffic term.
    step_ms : float or None
        Mean time of a forward pass, where machine and model are known.
    """

    cost: float
    low: float
    high: float
    fit: float
    imbalance: float
    traffic: float
    step_ms: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanRow:
    """A plan on all domains.

    Attributes
    ----------
    name : str
        ``mixture``; ``pooled``, for all tokens together as they were recorded; or ``only NAME``.
    plan : Plan
    cells : dict of str to Cell
        By domain.
    target : float
        What is minimised over the domains, on the tokens held out.
    low, high : float
        95 % interval of it.
    above_low, above_high : float
        95 % interval of how far it is above that of the mixture, on the same draws; 0 for the mixture itself.
    step_ms : float or None
        What is minimised, of the domains' times of a forward pass.
    """

    name: str
    plan: Plan
    cells: dict[str, Cell]
    target: float
    low: float
    high: float
    above_low: float
    above_high: float
    step_ms: float | None = None


def judge_plans(
    problem: Problem,
    request: MixtureRequest,
    domains: Sequence[Domain],
    weights: Floats,
    plans: Mapping[str, Plan],
    fitted: Mapping[str, Floats],
) -> tuple[PlanRow, ...]:
    """Judge every plan on every domain; the draws of the bootstrap are the same for all plans.

    Parameters
    ----------
    problem : Problem
    request : MixtureRequest
        Says what is minimised, and the seed of the draws.
    domains : sequence of Domain
    weights : (D,) float64
    plans : mapping of str to Plan
        With one that is called ``mixture``, which the others are compared with.
    fitted : mapping of str to (D,) float64
        What each costs on the tokens to fit.
    """
    time = request.time_model()
    steps = None if time is None else step_times(time, request.phase or "prefill", problem, plans, domains)
    figures = _figures(problem, request, domains, plans)
    ours = target_of(figures["mixture"].draws, weights, request)
    rows = []
    for name, own in figures.items():
        costs, spread, targets = own.costs, own.draws, target_of(own.draws, weights, request)
        cells = {
            domain.name: Cell(
                cost=float(costs[d]),
                low=float(np.quantile(spread[:, d], LEVEL[0])),
                high=float(np.quantile(spread[:, d], LEVEL[1])),
                fit=float(fitted[name][d]),
                imbalance=float(own.imbalance[d]),
                traffic=float(own.traffic[d]),
                step_ms=None if steps is None else steps[name][d],
            )
            for d, domain in enumerate(domains)
        }
        low, high = np.quantile(targets, LEVEL).tolist()
        above_low, above_high = np.quantile(targets - ours, LEVEL).tolist()
        target = float(target_of(costs, weights, request))
        times = None if steps is None else float(target_of(np.array(steps[name]), weights, request))
        about: dict[str, Any] = {
            "low": low,
            "high": high,
            "above_low": above_low,
            "above_high": above_high,
            "step_ms": times,
        }
        rows.append(PlanRow(name=name, plan=plans[name], cells=cells, target=target, **about))
    return tuple(rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Figures:
    """What a plan costs on each domain: (D,) each, and (B, D) of draws."""

    costs: Floats
    imbalance: Floats
    traffic: Floats
    draws: Floats


def _figures(
    problem: Problem, request: MixtureRequest, domains: Sequence[Domain], plans: Mapping[str, Plan]
) -> dict[str, _Figures]:
    """Replay domain by domain: what groups of sequences do is megabytes per plan, and no longer held than one takes."""
    rng = np.random.default_rng([request.seed, 0x4D49584D])
    told: list[list[tuple[float, float, float, Floats]]] = []
    for domain in domains:
        judged = replay_groups(problem, list(plans.values()), domain.held_out)
        size = len(judged[0].load)
        drawn = rng.multinomial(size, np.full(size, 1 / size), size=DRAWS).astype(np.float64)
        told.append([(float(each.cost()[0]), each.imbalance, each.traffic, each.cost(drawn)) for each in judged])
    found = {}
    for number, name in enumerate(plans):
        costs, imbalance, traffic, draws = zip(*(of_domain[number] for of_domain in told), strict=True)
        found[name] = _Figures(
            costs=np.array(costs),
            imbalance=np.array(imbalance),
            traffic=np.array(traffic),
            draws=np.stack(draws, axis=-1),
        )
    return found
