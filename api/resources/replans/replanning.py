"""Re-plans: checked before they are queued, and made in a worker."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.jobs.attempts import Attempt, Outcome
from api.resources.declared import build
from api.resources.named import check_model, plan_content, plan_of, trace_named
from api.resources.replans.body import KEPT, ReplanBody
from api.resources.requests import topology_of
from api.resources.searches.expected import READ_BYTES_PER_S
from api.resources.searches.queueing import Checked
from api.resources.searches.running import opened, phases, plan_text
from api.resources.searches.telling import replan_pays
from api.resources.topologies.named import with_topology
from api.settings.settings import Settings
from api.store.leases import StaleAttemptError
from api.store.tasks import Task
from api.store.tenant import TenantStore
from placement import Plan, Topology
from solvers import ReplanRequest, replan
from solvers.replanning.setting import check_outset
from traces import InputError, Violations

__all__ = ["check_replan", "make_replan", "replan_request"]

TOLD = (
    "unit",
    "before",
    "after",
    "gain_fraction",
    "gain_interval",
    "saved_s",
    "cost_s",
    "moved_experts",
    "moved_bytes",
)
JUDGING = 3.0  # how often the time of the search, with plans between and the judgement


def check_replan(body: ReplanBody, settings: Settings, store: TenantStore) -> Checked:
    """Check a body without reading the trace.

    Raises
    ------
    InputError
        With all violations.
    """
    found = Violations()
    content = plan_content(store, body.running, "/running", found)
    try:
        body = with_topology(store, body)
    except InputError as error:
        found.extend(error)
        body = body.model_copy(update={"topology": None})
    trace = trace_named(store, body.trace, found)
    request, running = replan_request(body, content, settings.max_time_limit_s, found)
    assert trace is not None
    check_outset(running, request, trace.facts["layer_ids"], trace.facts["num_experts"])
    _check_size(request, running, trace.facts, settings.max_job_bytes)
    asked = body.model_dump(mode="json")
    asked["limits"]["time_s"] = request.limits.time_s  # left out means the default, null means none
    named = body.running if isinstance(body.running, str) else None
    asked["running"] = named
    time_s = settings.max_time_limit_s if request.limits.time_s is None else request.limits.time_s
    expected = min(settings.max_time_limit_s, JUDGING * time_s) + trace.bytes / READ_BYTES_PER_S
    return Checked(request=asked, start=json.dumps(content), expected_s=expected, replaces=named)


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
        Longest search.
    found : Violations
        Takes all violations.

    Raises
    ------
    InputError
        With all violations.
    """
    said = body.model_dump(exclude_unset=True, exclude={"trace", "running", "name", "tags", *KEPT})
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
        limits = request.limits
        if limits.time_s is None or limits.time_s > max_time_s:
            if limits.said and limits.time_s is not None:
                detail = f"{limits.time_s:g} s is longer than this service searches."
                found.add("limit_range", "/limits/time_s", detail, f"Give at most {max_time_s:g} s.")
            else:  # with work alone, too: nothing interrupts these searches
                request = replace(request, limits=replace(limits, time_s=max_time_s))
        if not found.found:
            try:
                request.time_model()
            except InputError as error:
                found.extend(error)
    found.raise_if_any()
    assert request is not None
    assert running is not None
    return request, running


def _check_size(request: ReplanRequest, running: Plan, facts: Mapping[str, Any], max_bytes: int) -> None:
    """Refuse what needs too much memory: some 40 maps, each with replicas and shares per expert and GPU."""
    layers, experts, gpus = len(facts["layer_ids"]), facts["num_experts"], running.num_gpus
    if isinstance(request.topology, Topology):
        gpus = max(gpus, request.topology.num_gpus)
    if (need := 40 * 16 * layers * experts * gpus) > max_bytes:
        detail = f"{layers} layers, {experts} experts and {gpus} GPUs need {need / 1e9:.1f} GB."
        remedy = f"This service takes re-plans up to {max_bytes / 1e9:.1f} GB."
        raise InputError.of("job_too_large", "/running", detail, remedy)


def make_replan(attempt: Attempt, task: Task) -> Outcome:
    """Re-plan on the stored trace; write the plan to change to, the figures and the steps to the store.

    Raises
    ------
    InputError
    NoPlanError
    StaleAttemptError
        If it was given to another attempt.
    """
    job, reporter = attempt.job, attempt.reporter
    assert task.start is not None
    body = ReplanBody.model_validate(task.request | {"running": task.request["running"] or task.start})
    request, running = replan_request(body, task.start, job.max_time_limit_s, Violations())
    begun = time.monotonic()
    reporter.deadline = begun + job.max_time_limit_s
    source = opened(attempt, task.request["trace"], task.trace_name, task.facts)
    found = replan(running, source, request=request, workers=job.threads, tell=phases(attempt))
    if reporter.stale:
        raise StaleAttemptError
    document = found.as_dict()
    for step, plan in zip(document["steps"], found.plans, strict=True):
        step["plan"] = plan.as_dict()
    elapsed_s = time.monotonic() - begun
    attempt.lease.finish(
        "succeeded",
        values={"elapsed_s": elapsed_s},
        plan=plan_text(found.plan),
        summary=json.dumps(document, allow_nan=False),
        message=replan_pays(attempt, task, replaces=task.request["running"], **{name: document[name] for name in TOLD})
        if found.verdict == "replan"
        else None,
    )
    return Outcome(status="succeeded", solver=request.solver, elapsed_s=elapsed_s)
