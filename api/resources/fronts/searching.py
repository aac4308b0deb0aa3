"""The searches of a front, in a worker."""

from __future__ import annotations

import json
import time

from api.fronts import front_document, measure_front
from api.jobs.attempts import Attempt, Outcome
from api.resources.schemas import FrontBody
from api.resources.searches.parsing import plan_request
from api.resources.searches.running import overtime_note, plan_text, prepared_problem
from api.store.leases import StaleAttemptError, Task
from placement.files import plan_from_dict
from solvers import front

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
    start = None if task.start is None else plan_from_dict(task.start)
    request = plan_request(body, job.max_time_limit_s, start)
    prepared = prepared_problem(attempt, task, request)
    reporter.deadline = time.monotonic() + job.max_time_limit_s
    found = front(
        prepared.problem,
        solver=request.solver,
        options=dict(request.options),
        limits=request.limits,
        points=body.points,
        seed=request.seed,
        start=request.start,
        against=body.against,
        num_groups=body.num_groups,
        interrupt=reporter.interrupt,
        workers=job.threads,
    )
    if reporter.stale:
        raise StaleAttemptError
    reporter.deadline = None
    reporter.interrupt.clear()  # judging the points comes after the search, which is over
    points = front_document(prepared, found, measure_front(prepared, found, workers=job.threads))
    content = {"front": points, "plans": [plan_text(point.plan) for point in found.points]}
    status = "cancelled" if reporter.cancelled else "succeeded"
    warnings = [overtime_note(job.max_time_limit_s)] if reporter.overtime else []
    attempt.lease.finish(
        status,
        values={"elapsed_s": found.elapsed_s, "warnings": warnings},
        plan=json.dumps(content, allow_nan=False),
    )
    return Outcome(status=status, solver=body.solver, elapsed_s=found.elapsed_s)
