"""The searches of a front, in a worker."""

from __future__ import annotations

import json
import time

from api.jobs.attempts import Attempt, Outcome
from api.resources.requests import request_of
from api.resources.schemas import FrontBody
from api.resources.searches.running import overtime_note, plan_text, study_of
from api.store.leases import StaleAttemptError
from api.store.tasks import Task
from placement import Plan
from solvers.fronts.judged import front_document, judge_front

__all__ = ["search_front"]


def search_front(attempt: Attempt, task: Task) -> Outcome:
    """Search, then write the points with their plan files to the store.

    Raises
    ------
    InputError
    NoPlanError
    StaleAttemptError
        If the front was given to another attempt.
    """
    job, reporter = attempt.job, attempt.reporter
    body = FrontBody.model_validate(task.request)
    start = None if task.start is None else Plan.from_dict(task.start)
    request = request_of(body, job.max_time_limit_s, start)
    study = study_of(attempt, task, request)
    reporter.deadline = time.monotonic() + job.max_time_limit_s
    found = study.front(workers=job.threads, interrupt=reporter.interrupt)
    if reporter.stale:
        raise StaleAttemptError
    reporter.deadline = None
    reporter.interrupt.clear()  # judging the points comes after the search, which is over
    verdicts = judge_front(study.problem, study.parts, found, workers=job.threads)
    points = front_document(study.problem, found, verdicts, study.notes)
    content = {"front": points, "plans": [plan_text(point.plan) for point in found.points]}
    status = "cancelled" if reporter.cancelled else "succeeded"
    warnings = [overtime_note(job.max_time_limit_s)] if reporter.overtime else []
    attempt.lease.finish(
        status,
        values={"elapsed_s": found.elapsed_s, "warnings": warnings},
        plan=json.dumps(content, allow_nan=False),
    )
    return Outcome(status=status, solver=request.solver, elapsed_s=found.elapsed_s)
