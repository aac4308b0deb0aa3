"""Mixtures: checked before they are queued, and found in a worker."""

from __future__ import annotations

import json
import time
from typing import Any

from api.jobs.attempts import Attempt, Outcome
from api.resources.declared import build
from api.resources.mixtures.body import KEPT, SERVICE, MixtureBody
from api.resources.named import check_model, traces_named
from api.resources.requests import topology_of
from api.resources.searches.checks import check
from api.resources.searches.expected import READ_BYTES_PER_S, expected_s
from api.resources.searches.queueing import Checked
from api.resources.searches.running import opened, phases, plan_text
from api.resources.topologies.named import topology_or_any
from api.settings.settings import Settings
from api.store.leases import StaleAttemptError
from api.store.rows import TraceRow
from api.store.tasks import Task
from api.store.tenant import TenantStore
from placement.time import Machine
from solvers import MixtureRequest, mixture, solver_from
from solvers.mixtures.domains import domain_names, not_apart
from traces import InputError, Trace, Violations
from traces.splitting import LEAST

__all__ = ["check_mixture", "find_mixture"]

ALIKE = ("layer_ids", "num_experts", "top_k")
SEARCHING = 0.5  # share of the service's time for the searches: the rest is for reading, replaying and timing


def check_mixture(body: MixtureBody, settings: Settings, store: TenantStore) -> Checked:
    """Check a body without reading traces.

    Raises
    ------
    InputError
        With all violations.
    """
    found = Violations()
    named = traces_named(store, body.traces, found)
    _check_domains(named, found)
    body = topology_or_any(store, body, found)
    request = _request(body, settings.max_time_limit_s, found)
    if request is not None and request.weights and len(body.traces) > 1 and len(request.weights) != len(body.traces):
        detail = f"{len(request.weights)} weights for {len(body.traces)} domains."
        found.add("weights_number", "/weights", detail, "Give one for each, in their order.")
    found.raise_if_any()
    assert request is not None
    traces = [trace for trace in named if trace is not None]
    planning, profiles = request.planning(), max(len(traces), LEAST) + 1  # one for each domain, and for all
    check(planning, traces[0].facts, settings.max_job_bytes, profiles)
    asked = body.model_dump(mode="json")
    asked["limits"]["time_s"] = request.limits.time_s  # left out means the default, null means none
    size = sum(trace.bytes for trace in traces)
    each = expected_s(planning, 0, settings.max_time_limit_s)
    expected = (
        min(settings.max_time_limit_s, request.searches(max(len(traces), LEAST)) * each) + size / READ_BYTES_PER_S
    )
    return Checked(request=asked, start=None, expected_s=expected, traces=tuple(body.traces))


def _check_domains(named: list[TraceRow | None], found: Violations) -> None:
    """Report traces that hold no tokens, or are of another model than the first, or one that tells none apart."""
    known = [(number, trace) for number, trace in enumerate(named) if trace is not None]  # others are reported already
    seen = set[str]()
    for number, trace in known:
        first = known[0][1]
        name, place = trace.name or trace.id, f"/traces/{number}"
        if trace.facts["kind"] != "trace":
            detail = f"{name} holds no tokens: a mixture is judged by replaying them."
            found.add("counts_only", place, detail, "Record a trace with token identity (topk_ids).")
        elif any(trace.facts[axis] != first.facts[axis] for axis in ALIKE):
            detail = f"{name} is of other layers, experts or top-k than {first.name or first.id}."
            found.add("domains_differ", place, detail, "Give traces of one model.")
        if trace.id in seen:
            found.add("trace_twice", place, f"{name} is a domain already.", "Leave it out.")
        seen.add(trace.id)
        if len(named) == 1 and trace.facts["kind"] == "trace" and "data_source" not in trace.facts["columns"]:
            found.extend(not_apart(name, 0))


def _request(body: MixtureBody, max_time_s: float, found: Violations) -> MixtureRequest | None:
    said = body.model_dump(exclude_unset=True, exclude={*SERVICE, *KEPT})
    given: dict[str, Any] = {"topology": "1x1", "options": body.options}
    try:
        given["topology"] = topology_of(body.topology)
    except InputError as error:
        found.extend(error)
    if body.model is not None:
        check_model(body.model, found)
        given["model"] = body.model
    request: MixtureRequest | None = build(MixtureRequest, said, "", found, **given)
    for step in (lambda: solver_from(said.get("solver", "auto"), body.options), lambda: _machine(body.machine)):
        try:
            step()
        except InputError as error:
            found.extend(error)
    return None if request is None else _within(request, len(body.traces), max_time_s, found)


def _machine(name: str | None) -> None:
    if name is not None:
        Machine.parse(name)


def _within(request: MixtureRequest, traces: int, max_time_s: float, found: Violations) -> MixtureRequest:
    """Return the request with a time for each search, so that all of them end within the service's.

    How many sources a single trace has is told by its worker only: here they count as two.
    """
    domains, limits = max(traces, LEAST), request.limits
    searches = request.searches(domains)
    most = SEARCHING * max_time_s / searches
    if limits.time_s is not None and limits.time_s <= most:
        return request
    if limits.said and limits.time_s is not None:  # with work alone, too, it has a clock: nothing else ends a search
        detail = f"{searches} searches of {limits.time_s:g} s are longer than this service works on one request."
        found.add("limit_range", "/limits/time_s", detail, f"Give at most {most:.3g} s, or fewer rounds.")
    return request.within(SEARCHING * max_time_s, domains)


def find_mixture(attempt: Attempt, task: Task) -> Outcome:
    """Find a plan for the stored traces of several domains; write it, and the held-out matrix, to the store.

    Raises
    ------
    InputError
        If traces, machine and model do not fit each other, or a trace was deleted.
    NoPlanError
    StaleAttemptError
        If it was given to another attempt.
    """
    job, reporter = attempt.job, attempt.reporter
    begun = time.monotonic()
    reporter.deadline = begun + job.max_time_limit_s
    body, found = MixtureBody.model_validate(task.request), Violations()
    request = _request(body, job.max_time_limit_s, found)
    found.raise_if_any()
    assert request is not None
    searching_s = SEARCHING * job.max_time_limit_s  # a single trace may have more sources than were counted on
    own: dict[str, Any] = {"request": request, "workers": job.threads, "searching_s": searching_s}
    done = mixture(_domains(attempt, task), tell=phases(attempt), **own)
    if reporter.stale:
        raise StaleAttemptError
    elapsed_s = time.monotonic() - begun
    attempt.lease.finish(
        "succeeded",
        values={"elapsed_s": elapsed_s},
        plan=plan_text(done.plan),
        summary=json.dumps(done.as_dict(), allow_nan=False),
    )
    return Outcome(status="succeeded", solver=request.solver, elapsed_s=elapsed_s)


def _domains(attempt: Attempt, task: Task) -> Any:
    """Open the traces; several are domains by their names."""
    traces = [opened(attempt, trace.id, trace.name, trace.facts) for trace in task.traces]
    assert all(isinstance(trace, Trace) for trace in traces)
    if len(traces) == 1:
        return traces[0]
    names = domain_names([trace.name or trace.id for trace in task.traces])
    if len(set(names)) < len(names):
        names = [trace.id for trace in task.traces]
    return dict(zip(names, traces, strict=True))
