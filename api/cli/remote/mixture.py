"""``mixture --server``: the domains' traces are sent, and the service finds one plan for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.remote.jobs import check_end
from api.cli.remote.service import body_of, service_at
from api.cli.remote.trace import send_trace

if TYPE_CHECKING:
    from api.cli.progress import Progress
    from placement import Plan

__all__ = ["mixture_remotely"]


def mixture_remotely(
    server: str, traces: Sequence[Path], readings: Sequence[dict[str, Any]], body: dict[str, Any], *, shown: Progress
) -> tuple[dict[str, Any], Plan]:
    """Upload the traces of domains and have a service find a plan for all of them.

    Parameters
    ----------
    server : str
        URL of the service.
    traces : sequence of Path
        Or ids of traces of the service.
    readings : sequence of dict
        Keyword arguments of `traces.load`, for each.
    body : dict
        What was asked, as a request for a mixture says it, but the traces.
    shown : Progress

    Returns
    -------
    document, plan
        See `solvers.Mixture.as_dict`, with the mixture's ``id`` and those of its ``traces``; and the plan.

    Raises
    ------
    InputError
        If the service refuses something, or can't be reached.
    NoPlanError
        If a search ended without a plan.
    """
    from placement import Plan

    with service_at(server) as service:
        from api.resources.mixtures.body import MixtureBody

        shown.phase("uploading")
        sent = [send_trace(service, trace, reading) for trace, reading in zip(traces, readings, strict=True)]
        shown.phase("waiting for the service")
        done = service.mixture(body_of(MixtureBody, {"traces": sent} | body))
    check_end(done, server)
    assert done.mixture is not None
    assert done.plan is not None
    return done.mixture.model_dump(mode="json") | {"id": done.id, "traces": sent}, Plan.from_dict(done.plan)
