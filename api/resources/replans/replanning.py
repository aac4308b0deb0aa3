"""Re-plans: from a body to `solvers.replan`, which runs in a helper process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.resources.declared import build
from api.resources.named import check_model, plan_of
from api.resources.replans.body import KEPT, ReplanBody
from api.resources.requests import topology_of
from api.resources.traces.stored import StoredTrace
from placement import Plan, Topology
from solvers import ReplanRequest, replan
from traces import InputError, Violations

__all__ = ["ReplanTask", "replan_request", "replanned"]


@dataclass(frozen=True, kw_only=True)
class ReplanTask:
    """Everything that a re-plan needs; pickles."""

    request: ReplanRequest
    running: Plan
    trace: StoredTrace
    workers: int | None


def replan_request(
    body: ReplanBody, content: Mapping[str, Any] | None, max_time_s: float, found: Violations
) -> tuple[ReplanRequest, Plan]:
    """Build the request of a body, and the plan that runs.

    Parameters
    ----------
    body : ReplanBody
    content : mapping or None
        Of the plan that runs; None where it was not found, as `found` says.
    max_time_s : float
        Longest search: what a helper has is for reading, searching and judging together.
    found : Violations
        Takes all violations.

    Raises
    ------
    InputError
        With all violations.
    """
    said = body.model_dump(exclude_unset=True, exclude={"trace", "running", *KEPT})
    running = None if content is None else plan_of(content, "/running", found)
    given: dict[str, Any] = {}
    if body.model is not None:
        check_model(body.model, found)
        given["model"] = body.model
    if body.topology is not None:
        try:
            given["topology"] = topology_of(body.topology)
        except InputError as error:
            found.extend(error)
    request: ReplanRequest | None = build(ReplanRequest, said, "", found, **given)
    if request is not None:
        if request.limits.time_s is None or request.limits.time_s > max_time_s:
            detail = "A search here has a time limit, as a client waits for its answer."
            found.add("limit_range", "/limits/time_s", detail, f"Give at most {max_time_s:g} s.")
        if not found.found:
            try:
                request.time_model()
            except InputError as error:
                found.extend(error)
    found.raise_if_any()
    assert request is not None
    assert running is not None
    return request, running


def replanned(task: ReplanTask, max_bytes: int) -> dict[str, Any]:
    """Re-plan on a stored trace.

    Parameters
    ----------
    task : ReplanTask
    max_bytes : int
        Largest estimate of memory to let pass.

    Raises
    ------
    InputError
    """
    source = task.trace.open()
    gpus = task.running.num_gpus
    if isinstance(task.request.topology, Topology):
        gpus = max(gpus, task.request.topology.num_gpus)
    # Some 40 maps, each with replicas and shares per expert and GPU.
    need = 40 * 16 * source.num_layers * source.num_experts * gpus
    if need > max_bytes:
        detail = f"{source.num_layers} layers, {source.num_experts} experts and {gpus} GPUs need {need / 1e9:.1f} GB."
        remedy = f"This service takes re-plans up to {max_bytes / 1e9:.1f} GB."
        raise InputError.of("job_too_large", "/running", detail, remedy)
    found = replan(task.running, source, request=task.request, workers=task.workers)
    document = found.as_dict()
    for step, plan in zip(document["steps"], found.plans, strict=True):
        step["plan"] = plan.as_dict()
    return document | {"plan": found.plan.as_dict()}
