"""``front --server``: the same command line, the searches run on a service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.console import say
from api.cli.remote.service import body_of, raise_failure, service_at
from api.cli.remote.trace import send_trace

if TYPE_CHECKING:
    from api.cli.progress import Progress
    from placement import Plan

__all__ = ["front_remotely"]


def front_remotely(
    server: str,
    trace: Path,
    reading: dict[str, Any],
    body: dict[str, Any],
    *,
    shown: Progress,
) -> tuple[dict[str, Any], list[Plan]]:
    """Upload a trace and have a service search for a front.

    Parameters
    ----------
    server : str
        URL of the service.
    trace : Path
        Or id of a trace of the service.
    reading : dict
        Keyword arguments of `traces.load`.
    body : dict
        What was asked, as a request for a front says it, but the trace.
    shown : Progress

    Returns
    -------
    document, plans
        See `solvers.fronts.judged.front_document`; with the front's ``id``, and the id of its ``trace``.

    Raises
    ------
    InputError
        If the service refuses something, or can't be reached.
    NoPlanError
        If the searches ended without a plan.
    """
    from api.report.summary import warnings_text
    from placement import Plan

    with service_at(server) as service:
        from api.resources.schemas import FrontBody

        shown.phase("uploading")
        uploaded = send_trace(service, trace, reading)
        shown.phase("waiting for the service")
        asked = service.front(body_of(FrontBody, {"trace": uploaded} | body))
        try:
            found = service.wait_front(asked.id)
        except KeyboardInterrupt:
            say("The searches are asked to stop; their points are kept.", "note")
            service.cancel_front(asked.id)
            found = service.wait_front(asked.id)
        for warning in warnings_text(found.warnings):
            say(warning, "warning")
        if found.error is not None:
            raise_failure(asked.id, server, found.error)
        document = found.front
        if document is None:
            raise KeyboardInterrupt  # cancelled before there was a point
        shown.phase("fetching the plans")
        plans = [Plan.from_dict(service.point_file(asked.id, number)) for number in range(len(document["points"]))]
    return document | {"id": asked.id, "trace": uploaded}, plans
