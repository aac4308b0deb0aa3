"""The search in milliseconds: hop costs weighed as time weighs them, and candidates chosen by their time."""

from __future__ import annotations

import threading
import time as clock
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from placement import Plan, Problem, Score, Term, Termination, score
from placement.advice.sample import sample_passes
from placement.cost.feasibility import load_cap_misses
from placement.time.step import check_fit, travel_in_steps
from solvers.judging.judge import FITTED, QUICK, QUICK_WORK, Judge
from solvers.plans import NoPlanError
from solvers.requests.request import Request
from solvers.requests.served import Timed
from solvers.searching.events import Event, Observer
from solvers.searching.limits import Limits
from solvers.searching.solution import Solution, Step
from solvers.seeds import MakeExecutor, search_seeds
from solvers.solving.solving import check_start, solve
from solvers.timed.bound import least_step_ms
from solvers.timed.weights import in_milliseconds
from traces import InputError, Trace

__all__ = ["UNIT", "judge_of", "search_in_time", "timed_score"]

UNIT: Final = "ms per forward pass"
ROUNDS: Final = 2  # searches with weights in milliseconds, each around the best plan so far


def judge_of(problem: Problem, tokens: Trace | None, asked: Timed, passes: int = FITTED) -> Judge:
    """Return what times plans of a problem on some tokens.

    Raises
    ------
    InputError
        If there are no tokens, tokens do not go home, or trace, machine and model do not fit each other.
    """
    if tokens is None:
        detail = "Time needs tokens, in passes: the source holds counts."
        raise InputError.of("counts_only", "/time", detail, "Give a trace with token identity (topk_ids).")
    if problem.objective.execution != "dispatch":
        detail = "The time of a step is that of dispatch and combine, and here tokens go straight from layer to layer."
        raise InputError.of("timed_execution", "/time", detail, "Name an engine, or use execution 'dispatch'.")
    model = asked.time_model(problem.engine)
    settled = problem.objective
    travel = travel_in_steps(tokens, model, problem.engine, None, settled.ownership, settled.replica_policy)
    anywhere = np.full((problem.num_layers, problem.num_slots), -1, np.int32)
    anywhere[:, : problem.num_experts] = np.arange(problem.num_experts)
    check_fit(problem.plan(anywhere), tokens, model)
    sample = sample_passes(tokens, model.pass_tokens, asked.timed_phase, max_passes=passes)
    return Judge(time=model, sample=sample, travel=travel)


def timed_score(problem: Problem, plan: Plan, step_ms: float) -> Score:
    """Return the score of a plan in milliseconds, with the hop terms beside it, which weigh nothing."""
    found = score(problem, problem.table_of(plan))
    terms = tuple(replace(term, weight=0.0) for term in found.terms)
    step = Term(name="step", value=step_ms, weight=1.0, unit=UNIT)
    return replace(found, total=step_ms, terms=(step, *terms))


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A plan, what it takes, who found it, and how its search ended."""

    missed: bool
    step_ms: float
    number: int
    name: str
    plan: Plan
    solution: Solution | None


def search_in_time(
    problem: Problem,
    judge: Judge,
    request: Request,
    *,
    running: Plan | None,
    executor: MakeExecutor | None,
    workers: int | None,
    interrupt: threading.Event | None,
    observe: Observer | None = None,
) -> Solution:
    """Return the plan of the least time on the sample's passes, of all that are tried.

    Tried are the plan that runs, the plan to start from, balance by load alone, the method under the problem's own
    weights, and the method with weights in milliseconds: taken at the best plan so far, twice. Each is timed exactly.

    Parameters
    ----------
    problem : Problem
    judge : Judge
        Of the tokens that the problem was made from.
    request : Request
        Its limits are those of all searches together.
    running : Plan or None
        The plan that runs.
    executor, workers, interrupt
        See `solvers.Study.solve`.
    observe : callable, optional
        Gets an event per better plan, in milliseconds.

    Raises
    ------
    NoPlanError
        If no method found a plan.
    """
    began, bound = clock.monotonic(), least_step_ms(judge, problem.slots_per_gpu)
    solver, start = request.solver, request.start
    if start is not None:
        check_start(problem, start)
    found: list[_Candidate] = []
    history: list[Step] = []
    missed: NoPlanError | None = None

    def offer(name: str, plan: Plan, solution: Solution | None) -> None:
        best = min(found, key=_order, default=None)
        new = _Candidate(
            missed=bool(load_cap_misses(problem, plan.physical_to_logical_map)),
            step_ms=judge.step_ms(plan),
            number=len(found),
            name=name,
            plan=plan,
            solution=solution,
        )
        found.append(new)
        if best is not None and _order(best) <= _order(new):
            return
        elapsed = clock.monotonic() - began
        history.append(Step(elapsed_s=elapsed, solver=name, score=new.step_ms, bound=bound))
        if observe is not None:
            gap = max(0.0, 1 - bound / new.step_ms) if new.step_ms else 0.0
            told: dict[str, Any] = {"score": new.step_ms, "bound": bound, "gap": gap}
            table = plan.physical_to_logical_map
            observe(Event(kind="incumbent", elapsed_s=elapsed, solver=name, table=table, **told))

    def search(name: str, searched: Problem, method: str | None, limit: Limits) -> None:
        nonlocal missed
        how: dict[str, Any] = {"workers": workers, "interrupt": interrupt}
        try:
            if method is not None:
                solution = solve(searched, method, limits=limit, seed=request.seed, **how)
            else:
                solution = search_seeds(searched, replace(request, limits=limit), executor=executor, **how)
        except NoPlanError as error:
            missed = error
            return
        offer(name, solution.plan, solution)

    if start is not None:
        offer("start", start, None)
    if running is not None:
        offer("the plan that runs", running, None)
    with suppress(InputError):  # constraints that it does not know
        search(QUICK, problem, QUICK, Limits(work=QUICK_WORK))
    share = _part(request.limits, ROUNDS + 1)
    search(solver, problem, None, share)
    for turn in range(ROUNDS):
        if not found or _done(found, bound, request.limits.gap):
            break
        around = min(found, key=_order).plan
        weighed = in_milliseconds(problem, judge, around)
        if weighed is not None:
            search(f"{solver}, weighed by time" + ("" if not turn else ", again"), weighed, None, share)
    if not any(each.solution for each in found):
        assert missed is not None
        raise missed
    return _finished(problem, request.time, found, bound, history, clock.monotonic() - began)


def _order(each: _Candidate) -> tuple[bool, float, int]:
    return each.missed, each.step_ms, each.number


def _done(found: list[_Candidate], bound: float, gap: float | None) -> bool:
    """Whether somebody has stopped the search, or the gap in milliseconds is small enough."""
    best, last = min(found, key=_order), found[-1].solution
    if last is not None and last.termination.limit == "cancelled":
        return True
    return gap is not None and not best.missed and best.step_ms - bound <= gap * best.step_ms


def _finished(
    problem: Problem, asked: Timed, found: list[_Candidate], bound: float, history: list[Step], elapsed_s: float
) -> Solution:
    best = min(found, key=_order)
    searched = [each.solution for each in found if each.solution is not None]
    made = best.solution or searched[-1]
    ends = [each.termination for each in searched]
    limit = next((end.limit for end in reversed(ends) if end.limit is not None), None)
    proven = not best.missed and best.step_ms <= bound
    misses = load_cap_misses(problem, best.plan.physical_to_logical_map)
    termination = Termination(
        reason="infeasible" if best.missed else "optimal" if proven else "feasible",
        limit=limit,
        detail=misses[0] if misses else made.termination.detail if best.solution else "",
        deterministic=all(end.deterministic for end in ends),
    )
    plan = problem.plan(
        best.plan.physical_to_logical_map,
        score=best.step_ms,
        bound=min(bound, best.step_ms),
        termination=termination,
        warnings=tuple(dict.fromkeys((*misses, *(made.plan.warnings if best.solution else ())))),
        provenance={
            **made.plan.provenance,
            "found_by": best.name,
            "time": {"unit": UNIT, "machine": asked.machine, "model": asked.model, "phase": asked.timed_phase},
        },
    )
    return Solution(
        plan=plan,
        score=timed_score(problem, plan, best.step_ms),
        termination=termination,
        elapsed_s=elapsed_s,
        history=tuple(history),
    )


def _part(limits: Limits, parts: int) -> Limits:
    """Return the limits of one of several searches; a gap is one of milliseconds, which they do not know."""
    changed: dict[str, Any] = {"gap": None, "time_s": None if limits.time_s is None else limits.time_s / parts}
    if limits.work is not None:
        changed["work"] = max(1, limits.work // parts)
    return replace(limits, **changed)
