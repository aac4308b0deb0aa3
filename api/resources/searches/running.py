"""What the searches for plans and fronts have in common in a worker."""

from __future__ import annotations

import json

from api.jobs.attempts import Attempt
from api.jobs.reporter import AttemptInterruptedError
from api.resources.traces.inspection import open_stored
from api.store.leases import Task
from api.store.remote_blobs import open_blobs
from placement import Plan
from solvers import Request, Study
from traces import InputError, Trace

__all__ = ["overtime_note", "plan_text", "study_of"]


def study_of(attempt: Attempt, task: Task, request: Request) -> Study:
    """Read the stored trace and build the problem; a cancellation ends the reading.

    Raises
    ------
    InputError
        If the worker can't see the folder of the traces, or the request does not fit the trace.
    AttemptInterruptedError
    """
    job, reporter, trace_id = attempt.job, attempt.reporter, task.request["trace"]
    if not attempt.blobs.is_dir():
        detail = "The worker can't see the folder of the traces."
        remedy = "Share it with every worker under the same path, or set MOE_PLACEMENT_BLOBS_URL."
        raise InputError.of("blobs_unreachable", "/trace", detail, remedy)
    path = open_blobs(attempt.blobs, job.blobs_url).fetch(trace_id)
    source = open_stored(path, trace_id, task.trace_name, task.facts)
    if isinstance(source, Trace):
        source = reporter.watched(source)
    study = Study.of(source, request=request, workers=job.threads)
    if reporter.interrupt.is_set():
        raise AttemptInterruptedError
    return study


def plan_text(plan: Plan) -> str:
    """Return the text of a plan file."""
    return json.dumps(plan.as_dict(), allow_nan=False) + "\n"


def overtime_note(max_time_limit_s: float) -> str:
    """Return the warning of a search that the service has ended."""
    return f"The service ends every search after {max_time_limit_s:g} s."
