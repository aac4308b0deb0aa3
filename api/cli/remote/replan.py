"""``replan --server``: the plan that runs and the trace are sent, and the service re-plans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.remote.jobs import check_end, sent_plan
from api.cli.remote.service import body_of, service_at
from api.cli.remote.trace import send_trace

if TYPE_CHECKING:
    from api.cli.progress import Progress
    from placement import Plan

__all__ = ["replan_remotely"]


def replan_remotely(
    server: str, running: str | Plan, trace: Path, reading: dict[str, Any], body: dict[str, Any], *, shown: Progress
) -> tuple[dict[str, Any], Plan, list[Plan]]:
    """Upload a trace and have a service re-plan.

    Parameters
    ----------
    server : str
        URL of the service.
    running : str or Plan
        The plan that runs: its id, or what was read from its file.
    trace : Path
        Or id of a trace of the service.
    reading : dict
        Keyword arguments of `traces.load`.
    body : dict
        What was asked, as a request for a re-plan says it, but plan and trace.
    shown : Progress

    Returns
    -------
    document, plan, plans
        See `solvers.Replan.as_dict`, with the re-plan's ``id`` and that of its ``trace``; the plan to change to; and
        the plan after each step.

    Raises
    ------
    InputError
        If the service refuses something, or can't be reached.
    NoPlanError
        If the search ended without a plan.
    """
    from placement import Plan

    with service_at(server) as service:
        from api.resources.replans.body import ReplanBody

        shown.phase("uploading")
        uploaded = send_trace(service, trace, reading)
        shown.phase("waiting for the service")
        asked = {"running": sent_plan(running), "trace": uploaded} | body
        done = service.replan(body_of(ReplanBody, asked))
    check_end(done, server)
    assert done.replan is not None
    assert done.plan is not None
    document = done.replan.model_dump(mode="json")
    plans = [Plan.from_dict(step.pop("plan")) for step in document["steps"]]
    return document | {"id": done.id, "trace": uploaded}, Plan.from_dict(done.plan), plans
