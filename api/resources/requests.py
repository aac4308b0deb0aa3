"""From a body to a request: every violation at once, with pointers into the body."""

from __future__ import annotations

from dataclasses import replace

from api.resources.declared import build
from api.resources.named import check_model
from api.resources.schemas import FrontBody, PlanBody, TopologyFile
from placement import Plan, Topology
from placement.topology.file import topology_from_dict
from solvers import solver_from
from solvers.requests.request import FrontRequest, Request
from traces import InputError, Violations
from traces.model.presets import preset_names

__all__ = ["request_of", "topology_of"]


def topology_of(field: str | TopologyFile) -> Topology:
    """Build the topology of a body.

    Raises
    ------
    InputError
        With pointers below ``/topology``.
    """
    if isinstance(field, str):
        return Topology.parse(field)
    return topology_from_dict(field.model_dump(exclude_unset=True, exclude_none=True), "/topology")


def _machine_of(body: PlanBody | FrontBody) -> Topology | None:
    """Return the topology that is given; None where it follows from a machine."""
    if body.topology is not None:
        return topology_of(body.topology)
    if body.time.machine is not None:
        return None
    detail = "A plan needs a machine."
    raise InputError.of("topology_missing", "/topology", detail, "Give a topology, or a machine and a model as time.")


def request_of(body: PlanBody | FrontBody, max_time_limit_s: float, start: Plan | None = None) -> Request:
    """Build the request of a body; of a front's body, a `FrontRequest`.

    Parameters
    ----------
    body : PlanBody or FrontBody
    max_time_limit_s : float
        Longest search of the service; what is left out is the library's default, or this if it is less.
    start : Plan, optional
        The plan that the body names as its start.

    Raises
    ------
    InputError
        With all violations of topology, limits, objective, constraints and solver options.
    """
    found = Violations()
    topology: Topology | None = Topology.parse("1x1")
    try:
        topology = _machine_of(body)
    except InputError as error:
        found.extend(error)
    said = body.model_dump(exclude_unset=True, exclude={"trace", "topology", "start", "replaces", "name", "tags"})
    if isinstance(body, PlanBody) and body.time.model not in (None, *preset_names()):
        check_model(str(body.time.model), found, "/time/model")
        said["time"]["model"] = preset_names()[0]  # the rest is checked as of a known one: a name is never a path here
    kind = FrontRequest if isinstance(body, FrontBody) else Request
    if kind is FrontRequest and said.get("against") == "bytes_moved" and start is None:
        detail = "Bytes moved are counted from the plan that runs now."
        found.add("start_missing", "/start", detail, "Name that plan, as one of this service's.")
    request: Request | None = build(kind, said, "", found, topology=topology, start=start)
    try:
        solver_from(said.get("solver", "auto"), body.options)
        if said.get("baseline") is not None:
            solver_from(said["baseline"], {})
    except InputError as error:
        found.extend(error)
    if request is not None and request.limits.time_s is not None and request.limits.time_s > max_time_limit_s:
        if request.limits.said:
            detail = f"{request.limits.time_s:g} s is longer than this service searches."
            remedy = f"Give at most {max_time_limit_s:g} s."
            found.add("limit_range", "/limits/time_s", detail, remedy)
        else:
            request = replace(request, limits=replace(request.limits, time_s=max_time_limit_s))
    found.raise_if_any()
    assert request is not None
    return request
