"""What everything that is queued has in common in a worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from api.jobs.attempts import Attempt, TookTooLongError
from api.jobs.reporter import AttemptInterruptedError
from api.resources.traces.inspection import open_stored
from api.store.remote_blobs import open_blobs
from api.store.tasks import Task
from placement import Plan
from solvers import Request, Study
from solvers.sources.source import Source
from traces import InputError, Trace

__all__ = ["opened", "overtime_note", "phases", "plan_text", "study_of"]


def study_of(attempt: Attempt, task: Task, request: Request) -> Study:
    """Read the stored trace and build the problem; a cancellation ends the reading.

    Raises
    ------
    InputError
        If the worker can't see the folder of the traces, or the request does not fit the trace.
    AttemptInterruptedError
    """
    job, reporter = attempt.job, attempt.reporter
    source = opened(attempt, task.request["trace"], task.trace_name, task.facts)
    study = Study.of(source, request=request, workers=job.threads)
    if reporter.interrupt.is_set():
        raise AttemptInterruptedError
    return study


def opened(attempt: Attempt, trace_id: str, name: str | None, facts: Mapping[str, Any]) -> Source:
    """Open a stored trace; a cancellation ends the reading.

    Raises
    ------
    InputError
        If the worker can't see the folder of the traces.
    """
    if not attempt.blobs.is_dir():
        detail = "The worker can't see the folder of the traces."
        remedy = "Share it with every worker under the same path, or set MOE_PLACEMENT_BLOBS_URL."
        raise InputError.of("blobs_unreachable", "/trace", detail, remedy)
    path = open_blobs(attempt.blobs, attempt.job.blobs_url).fetch(trace_id)
    source = open_stored(path, trace_id, name, facts)
    return attempt.reporter.watched(source) if isinstance(source, Trace) else source


def phases(attempt: Attempt) -> Callable[[str], None]:
    """Return what the library calls at the begin of each phase: there, what is to stop does.

    Raises
    ------
    AttemptInterruptedError
        If it was cancelled, or given to another attempt.
    TookTooLongError
        If it has taken as long as it may.
    """

    def begin(_: str) -> None:
        reporter = attempt.reporter
        if reporter.overtime:
            raise TookTooLongError(overtime_note(attempt.job.max_time_limit_s))
        if reporter.interrupt.is_set():
            raise AttemptInterruptedError

    return begin


def plan_text(plan: Plan) -> str:
    """Return the text of a plan file."""
    return json.dumps(plan.as_dict(), allow_nan=False) + "\n"


def overtime_note(max_time_limit_s: float) -> str:
    """Return the warning of a search that the service has ended."""
    return f"The service ends every search after {max_time_limit_s:g} s."
