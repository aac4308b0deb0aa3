"""The search for a plan, in a worker."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from typing import Any

from api.jobs.attempts import Attempt, Outcome
from api.jobs.reporter import AttemptInterruptedError, Reporter
from api.report.summary import summary_text
from api.resources.requests import request_of
from api.resources.schemas import PlanBody
from api.resources.searches.running import overtime_note, plan_text, study_of
from api.store.leases import StaleAttemptError
from api.store.tasks import Task
from api.telemetry.gauges import PlanLoad
from placement import Plan
from solvers import Event, Solution, Study, advice_on
from solvers.judging.counted import expected_load
from traces import InputError

__all__ = ["search_plan"]


def search_plan(attempt: Attempt, task: Task) -> Outcome:
    """Search, then write the plan file, its figures and the summary to the store.

    Raises
    ------
    InputError
    NoPlanError
    StaleAttemptError
        If the plan was given to another attempt.
    """
    job, lease, reporter = attempt.job, attempt.lease, attempt.reporter
    body = PlanBody.model_validate(task.request)
    request = request_of(body, job.max_time_limit_s)
    # After a restart the search goes on from its best plan, unless seed and work limit promise a result of their own.
    first = task.start if request.limits.deterministic else task.best or task.start
    if first is not None:
        request = replace(request, start=Plan.from_dict(first))
    study = study_of(attempt, task, request)
    reporter.plan_text = lambda event, bound: plan_text(_incumbent_plan(study, event, bound))
    reporter.deadline = time.monotonic() + job.max_time_limit_s
    solution = study.solve(observe=reporter.observe, workers=job.threads, interrupt=reporter.interrupt)
    if reporter.stale:
        raise StaleAttemptError
    plan = _final_plan(solution, reporter, job.max_time_limit_s)
    text = plan_text(plan)
    lease.report(score=plan.score, bound=plan.bound, elapsed_s=solution.elapsed_s, plan=text)
    summary, warnings = _summary(attempt, study, replace(solution, plan=plan))
    assert plan.termination is not None
    status = "cancelled" if reporter.cancelled else "succeeded"
    lease.finish(
        status,
        values={
            "score": plan.score,
            "bound": plan.bound,
            "elapsed_s": solution.elapsed_s,
            "termination": asdict(plan.termination),
            "warnings": warnings,
        },
        plan=text,
        summary=None if summary is None else json.dumps(summary, allow_nan=False),
    )
    load = _load(job.claim.plan_id, task, study, plan)
    return Outcome(status=status, solver=request.solver, elapsed_s=solution.elapsed_s, load=load)


def _summary(attempt: Attempt, study: Study, solution: Solution) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the summary, unless the search was cancelled or it can't be made, and the plan's warnings."""
    reporter, warnings = attempt.reporter, list(solution.plan.warnings)
    if reporter.cancelled:
        return None, warnings
    reporter.deadline = None
    if reporter.overtime:
        reporter.interrupt.clear()
    try:
        comparison = study.compare(plan=solution, workers=attempt.job.threads)
        told = comparison.as_dict() | {"text": summary_text(study, solution, comparison)}
        if study.request.time and study.baseline is not None:
            told["advice"] = advice_on(study, solution.plan).detailed()
        return told, warnings
    except AttemptInterruptedError:
        warnings.append("There is no summary: the plan was cancelled before it was made.")
    except (InputError, MemoryError) as error:
        warnings.append(f"There is no summary: {error or 'not enough memory'}")
    return None, warnings


def _load(plan_id: str, task: Task, study: Study, plan: Plan) -> PlanLoad:
    load = study.problem.profile.load
    return PlanLoad(
        tenant=task.tenant,
        plan=plan_id,
        trace=task.request["trace"],
        imbalance=expected_load(study.problem, plan)["imbalance_max_over_mean"],
        hottest_share=float((load / load.sum(axis=1, keepdims=True)).max()),
        gap=plan.gap,
    )


def _final_plan(solution: Solution, reporter: Reporter, max_time_limit_s: float) -> Plan:
    if not (reporter.overtime and solution.termination.limit == "cancelled"):
        return solution.plan
    detail = overtime_note(max_time_limit_s)
    return solution.plan.replacing(
        termination=replace(solution.termination, limit="time", detail=detail, deterministic=False),
        warnings=(*solution.plan.warnings, detail),
    )


def _incumbent_plan(study: Study, event: Event, bound: float | None) -> Plan:
    assert event.table is not None
    return study.problem.plan(event.table, score=event.score, bound=bound)
