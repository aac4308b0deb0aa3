"""Plans to judge: found by a few methods, chosen by their time on the tokens that they were fitted on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from placement import Plan, Problem
from solvers.judging.judge import QUICK, QUICK_WORK, Judge
from solvers.methods.registry import solver_from
from solvers.plans import NoPlanError
from solvers.searching.limits import Limits
from solvers.solving.solving import solve
from solvers.timed.weights import in_milliseconds

__all__ = ["best_plan"]

Tell = Callable[[str], None]


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
    if running is not None and (by_time := in_milliseconds(problem, judge, running)) is not None:
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


def _half(limits: Limits) -> Limits:
    changed: dict[str, Any] = {}
    if limits.time_s is not None:
        changed["time_s"] = limits.time_s / 2
    if limits.work is not None:
        changed["work"] = max(1, limits.work // 2)
    return replace(limits, **changed) if limits.time_s is not None else replace(limits, time_s=None, **changed)
