"""Proofs of survival: from a body to `placement.prove_survival`, which runs in a helper process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.report.survive import survive_document
from api.resources.declared import build
from api.resources.named import plan_content, plan_of, trace_named
from api.resources.requests import topology_of
from api.resources.survival.body import KEPT, SurvivalBody
from api.resources.topologies.named import with_topology
from api.resources.traces.stored import StoredTrace
from api.settings.settings import Settings
from api.store.rows import TraceRow
from api.store.tenant import TenantStore
from placement import Plan, Topology
from placement.replay.choices import recorded_topology
from solvers.failures.request import FailureRequest
from solvers.failures.schedule import FailureEvent, events_of
from traces import InputError, Profile, Violations

__all__ = ["SurvivalTask", "proof", "survival_task"]


@dataclass(frozen=True, kw_only=True)
class SurvivalTask:
    """Everything that a proof needs; pickles."""

    request: FailureRequest
    plan: Plan
    topology: Topology
    trace: StoredTrace | None
    events: tuple[FailureEvent, ...] | None
    plans: bool


def survival_task(body: SurvivalBody, settings: Settings, store: TenantStore) -> tuple[SurvivalTask, TraceRow | None]:
    """Check a body.

    Raises
    ------
    InputError
        With all violations.
    """
    found = Violations()
    content = plan_content(store, body.plan, "/plan", found)
    plan = None if content is None else plan_of(content, "/plan", found)
    trace = None if body.trace is None else trace_named(store, body.trace, found)
    topology: Topology | None = None
    try:
        topology = _topology(with_topology(store, body), plan)
    except InputError as error:
        found.extend(error)
    if plan is not None and trace is not None:
        _check_trace(plan, trace.facts, found)
    events = None
    if body.schedule is not None:
        try:
            events = events_of([each.model_dump(exclude_none=True) for each in body.schedule])
        except InputError as error:
            found.extend(error)
    said = body.model_dump(exclude_unset=True, exclude={"plan", "trace", "schedule", "plans", *KEPT})
    request: FailureRequest | None = build(FailureRequest, said, "", found)
    found.raise_if_any()
    assert plan is not None
    assert topology is not None
    assert request is not None
    stored = None if trace is None else StoredTrace.of(settings, trace)
    task = SurvivalTask(request=request, plan=plan, topology=topology, trace=stored, events=events, plans=body.plans)
    return task, trace


def _topology(body: SurvivalBody, plan: Plan | None) -> Topology | None:
    if body.topology is not None:
        return topology_of(body.topology)
    recorded = None if plan is None else recorded_topology(plan, "/plan")
    if recorded is None and plan is not None:
        detail = "The plan does not record the topology that it was made for."
        raise InputError.of("topology_unknown", "/topology", detail, "Give one, 4x8 for instance.")
    return recorded


def _check_trace(plan: Plan, facts: Mapping[str, Any], found: Violations) -> None:
    if plan.layer_ids.tolist() != facts["layer_ids"] or plan.num_experts != facts["num_experts"]:
        detail = "The trace has other layers or experts than the plan."
        found.add("plan_differs", "/trace", detail, "Give a trace of the model that the plan is for.")


def proof(task: SurvivalTask, _: int) -> dict[str, Any]:
    """Prove what a plan survives, or find the failing set.

    Raises
    ------
    InputError
        If plan and topology do not fit each other.
    """
    load = None
    if task.trace is not None:
        source = task.trace.open()
        load = (source if isinstance(source, Profile) else Profile.of(source)).load
    found = survive_document(task.plan, task.topology, task.request, load, task.events)
    for each in found["degraded"]:
        plan = each.pop("plan")
        if task.plans:
            each["plan"] = None if plan is None else plan.as_dict()
    return found
