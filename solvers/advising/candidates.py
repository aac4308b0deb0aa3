"""Plans to judge: found by a few methods, chosen by their time on the tokens that they were fitted on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from placement import Plan, Problem, score
from placement.advice.sample import PassSample
from placement.advice.timing import PassTimes, PlanOnPasses, mean_step_ms
from placement.problem.objective import SettledObjective
from placement.time import TimeModel
from solvers.registry import solver_from
from solvers.searching.limits import Limits
from solvers.searching.solution import NoPlanError
from solvers.solving import solve
from traces import InputError

__all__ = ["Judge", "best_plan", "weighed"]

QUICK = "load_balance"  # milliseconds, and the best balance that there is without regard to messages
QUICK_WORK = 1_000_000
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Times plans on a sample of passes.

    Attributes
    ----------
    time : TimeModel
    sample : PassSample
    travel : SettledObjective
        How tokens travel.
    """

    time: TimeModel
    sample: PassSample
    travel: SettledObjective

    def times(self, plan: Plan) -> PassTimes:
        """Return the times of the passes under a plan."""
        return PlanOnPasses(plan, self.sample, self.time, self.travel).times()

    def step_ms(self, plan: Plan) -> float:
        """Return the mean time of a step."""
        return mean_step_ms(self.time, self.times(plan))


def best_plan(
    problem: Problem,
    judge: Judge,
    running: Plan | None,
    *,
    solver: str,
    limits: Limits,
    seed: int,
    workers: int | None,
    tell: Tell = lambda _: None,
) -> tuple[Plan, str]:
    """Return the plan that is fastest on the sample, and the method that found it.

    The method that was asked for runs twice, each time with half of the limits: under the problem's own objective, and
    with loads and messages weighed by what they take of a step under the plan that runs. A quick method beside it looks
    at loads alone.

    Parameters
    ----------
    problem : Problem
    judge : Judge
        Of the tokens that the problem was made from.
    running : Plan or None
        To weigh by.
    solver : str
    limits : Limits
    seed : int
    workers : int or None
    tell : callable
        Gets what is being done, in words.

    Raises
    ------
    NoPlanError
        If no method found a plan.
    """
    found: list[tuple[float, int, Plan, str]] = []
    missed: NoPlanError | None = None
    half = _half(limits)
    runs: list[tuple[str, Problem, str, Limits]] = [(solver, problem, solver, half)]
    if running is not None and (by_time := weighed(problem, judge, running)) is not None:
        runs.append((f"{solver}, weighed by time", by_time, solver, half))
    if solver != QUICK:
        runs.append((QUICK, problem, QUICK, Limits(work=QUICK_WORK)))
    for name, asked, method, limit in runs:
        if method == QUICK and method != solver and solver_from(method, {}).supports(asked) is not None:
            continue
        tell(f"searching: {name}")
        try:
            plan = solve(asked, method, limits=limit, seed=seed, workers=workers).plan
        except NoPlanError as error:
            missed = error
            continue
        found.append((judge.step_ms(plan), len(found), plan, name))
    if not found:
        assert missed is not None
        raise missed
    _, _, plan, name = min(found)
    return plan, name


def weighed(problem: Problem, judge: Judge, running: Plan) -> Problem | None:
    """Return the problem with the weight of balance that time gives it; None where that can't be said.

    A step waits for ``experts x max/mean`` and for messages: the imbalance weighs as much against the traffic as the
    experts take of a step against the exchange.
    """
    times = judge.times(running).mean()
    exchange, experts = float((times.dispatch + times.combine).sum()), float(times.experts.sum())
    try:
        parts = score(problem, problem.table_of(running))
        traffic, imbalance = parts["traffic"].value, 1 + parts["imbalance"].value
    except (InputError, KeyError):
        return None
    if not exchange > 0 or not traffic > 0:
        return None
    weight = float(np.clip(traffic * experts / imbalance / exchange, 1e-3, 1e6))
    settled = problem.objective
    spread = 2 * weight if settled.load_spread_weight else 0.0
    return replace(problem, objective=replace(settled, imbalance_weight=weight, load_spread_weight=spread))


def _half(limits: Limits) -> Limits:
    changed: dict[str, Any] = {}
    if limits.time_s is not None:
        changed["time_s"] = limits.time_s / 2
    if limits.work is not None:
        changed["work"] = max(1, limits.work // 2)
    return replace(limits, **changed) if limits.time_s is not None else replace(limits, time_s=None, **changed)
