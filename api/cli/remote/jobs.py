"""What the commands that wait for a job of a service have in common: how they send plans, and how a job has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.cli.console import say
from api.cli.remote.service import raise_failure

if TYPE_CHECKING:
    from api.resources.searches.answers import JobState
    from placement import Plan

__all__ = ["check_end", "sent_plan"]


def sent_plan(named: str | Plan) -> Any:
    """Return a plan as a request names it: by its id, or whole."""
    return named if isinstance(named, str) else named.as_dict()


def check_end(job: JobState, server: str) -> None:
    """Tell the warnings of a job that has ended, and raise what the command would raise without a service.

    Raises
    ------
    NoPlanError, InputError
        See `raise_failure`.
    KeyboardInterrupt
        If somebody has cancelled it.
    """
    from api.report.summary import warnings_text

    for warning in warnings_text(job.warnings):
        say(warning, "warning")
    if job.error is not None:
        raise_failure(job.id, server, job.error)
    if job.status == "cancelled":
        raise KeyboardInterrupt
