"""``survive --server``: a service proves what a plan survives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.remote.jobs import sent_plan
from api.cli.remote.service import body_of, service_at
from api.cli.remote.trace import send_trace

if TYPE_CHECKING:
    from placement import Plan

__all__ = ["survive_remotely"]


def survive_remotely(
    server: str, plan: str | Plan, trace: Path | None, reading: dict[str, Any], body: dict[str, Any], *, prepared: bool
) -> dict[str, Any]:
    """Have a service prove what a plan survives.

    Parameters
    ----------
    server : str
        URL of the service.
    plan : str or Plan
        Its id, or what was read from its file.
    trace : Path or None
        For loads; or id of a trace of the service.
    reading : dict
        Keyword arguments of `traces.load`.
    body : dict
        What was asked, as a request about failures says it, but plan and trace.
    prepared : bool
        Whether plans for what is left are wanted.

    Returns
    -------
    dict
        See `api.report.survive.survive_document`.

    Raises
    ------
    InputError
        If the service refuses something, or can't be reached.
    """
    from placement import Plan

    with service_at(server) as service:
        from api.resources.survival.body import SurvivalBody

        asked = {"plan": sent_plan(plan), "plans": prepared} | body
        if trace is not None:
            asked["trace"] = send_trace(service, trace, reading)
        found = service.survive(body_of(SurvivalBody, asked)).model_dump(mode="json")
    for each in found["degraded"]:
        content = each.pop("plan", None)
        each["plan"] = None if content is None else Plan.from_dict(content)
    return found
