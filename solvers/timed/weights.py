"""What a message and an uneven load are worth in milliseconds, around a plan: the step's slopes as weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np

from placement import Plan, Problem, score
from placement.advice.timing import PassTimes, PlanOnPasses, mean_step_ms
from solvers.judging.judge import Judge
from traces import InputError

__all__ = ["in_milliseconds"]

STEP: Final = 0.1  # relative; wide enough that whole tiles do not hide a slope
TIE: Final = 1e-3  # of the step: what does not cost time still tells equal plans apart


def in_milliseconds(problem: Problem, judge: Judge, plan: Plan) -> Problem | None:
    """Return the problem with its weights as the step's slopes around a plan; None where they can't be told.

    The traffic weighs what a step takes more if every message is so much larger, and the imbalance what it takes more
    if the experts of the slowest rank take so much longer. The spread, which stands for what other tokens make of a
    balance, has twice the weight of the imbalance, as `placement.Objective` has it. A cap's weight is in steps.

    Parameters
    ----------
    problem : Problem
    judge : Judge
    plan : Plan
        To take the slopes at.
    """
    settled = problem.objective
    try:
        parts = score(problem, problem.table_of(plan))
    except InputError:
        return None
    traffic, imbalance = parts["traffic"].value, 1 + parts["imbalance"].value
    times = PlanOnPasses(plan, judge.sample, judge.time, judge.travel).times()
    now = mean_step_ms(judge.time, times)
    dearer = replace(times, dispatch=times.dispatch * (1 + STEP), combine=times.combine * (1 + STEP))
    slower = replace(times, experts=times.experts * (1 + STEP))
    message, load = (_slope(judge, changed, now) for changed in (dearer, slower))
    if not traffic > 0 or not message + load > 0:
        return None
    per_message = max(message, TIE * now) / traffic
    per_load = max(load, TIE * now) / imbalance
    weights: dict[str, Any] = {
        "traffic_weight": per_message,
        "imbalance_weight": per_load,
        "load_spread_weight": 2 * per_load,
        "load_excess_weight": settled.load_excess_weight * now,
    }
    return replace(problem, objective=replace(settled, **weights))


def _slope(judge: Judge, changed: PassTimes, now: float) -> float:
    """Return milliseconds per relative change."""
    return float(np.maximum(mean_step_ms(judge.time, changed) - now, 0)) / STEP
