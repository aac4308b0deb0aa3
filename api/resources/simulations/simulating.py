"""Simulations of policies: checked before they are queued, and run in a worker."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.jobs.attempts import Attempt, Outcome
from api.resources.declared import build
from api.resources.named import check_model, plan_content, plan_of, trace_named
from api.resources.requests import topology_of
from api.resources.searches.expected import READ_BYTES_PER_S
from api.resources.searches.queueing import Checked
from api.resources.searches.running import opened, phases, plan_text
from api.resources.searches.telling import replan_pays
from api.resources.simulations.body import KEPT, SERVICE, SimulationBody
from api.resources.topologies.named import topology_or_any
from api.settings.settings import Settings
from api.store.leases import StaleAttemptError
from api.store.rows import SeriesRow, TraceRow
from api.store.tasks import Task
from api.store.tenant import TenantStore
from placement.time import Machine
from solvers import PolicyRequest, simulate
from traces import InputError, LoadCounts, Series, Trace, Violations, series_of_each
from traces.series.cutting import MAX_CHOICES, PARTS
from traces.series.series import WINDOWS

__all__ = ["check_simulation", "run_simulation"]

CELL_S = 1e-3  # of a window, layer and expert: 58 x 256 in ten windows take a minute
LEAST_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is simulated on: traces of a series, or one trace; and in how many windows."""

    traces: list[TraceRow]
    windows: int
    series: SeriesRow | None = None


def check_simulation(body: SimulationBody, settings: Settings, store: TenantStore) -> Checked:
    """Check a body without reading traces.

    Raises
    ------
    InputError
        With all violations.
    """
    found = Violations()
    source = _source(body, store, found)
    content = None if body.plan is None else plan_content(store, body.plan, "/plan", found)
    body = topology_or_any(store, body, found)
    _request(body, content, found)
    found.raise_if_any()
    assert source is not None
    facts = source.traces[0].facts
    layers, experts = len(facts["layer_ids"]), facts["num_experts"]
    choices = max(trace.facts["num_tokens"] or 0 for trace in source.traces) * layers * (facts["top_k"] or 0)
    kept = 4 * min(MAX_CHOICES, choices) + 8 * PARTS * layers * experts
    if (need := source.windows * kept) > settings.max_job_bytes:
        detail = f"{source.windows} windows of {layers} layers and {experts} experts need about {need / 1e9:.1f} GB."
        remedy = f"This service takes jobs up to {settings.max_job_bytes / 1e9:.1f} GB. Give fewer windows."
        raise InputError.of("job_too_large", "/windows", detail, remedy)
    size = sum(trace.bytes for trace in source.traces)
    asked = body.model_dump(mode="json")
    named = body.plan if isinstance(body.plan, str) else None
    asked["plan"] = named
    return Checked(
        request=asked,
        start=None if content is None else json.dumps(content),
        expected_s=LEAST_S + CELL_S * source.windows * layers * experts + size / READ_BYTES_PER_S,
        replaces=named,
        series=source.series,
        series_length=None if source.series is None else source.windows,
    )


def _source(body: SimulationBody, store: TenantStore, found: Violations) -> Source | None:
    if (body.series is None) == (body.trace is None):
        found.add("source_forms", "/series", "Windows come from a series or from a trace.", "Give one of them.")
        return None
    return _of_trace(body, store, found) if body.series is None else _of_series(body, store, body.series, found)


def _of_series(body: SimulationBody, store: TenantStore, series_id: str, found: Violations) -> Source | None:
    row = store.series.get(series_id)
    if row is None:
        found.add("unknown_series", "/series", f"There is no series {series_id}.", "Begin it with POST /v1/series.")
        return None
    for name in ("windows", "by"):
        if getattr(body, name) is not None:
            found.add("without_effect", f"/{name}", "The series is cut already.", "Leave it out.")
    length = store.series.lengths([row])[row.seq]
    if length < 2:
        detail = f"The series has {length} window(s), and one window is no series."
        found.add("one_dump", "/series", detail, "Add windows.")
        return None
    return Source(traces=store.series.traces(row, length), windows=length, series=row)


def _of_trace(body: SimulationBody, store: TenantStore, found: Violations) -> Source | None:
    assert body.trace is not None
    trace = trace_named(store, body.trace, found)
    if trace is None:
        return None
    windows: int = WINDOWS if body.windows is None else body.windows
    if trace.facts["kind"] == "profile":
        detail = "A profile has no time: it can't be cut."
        found.add("one_dump", "/trace", detail, "Give a trace, counts of several dumps, or a series of profiles.")
    elif trace.facts["kind"] == "counts":
        dumps: int = trace.facts.get("dumps", 0)
        if dumps < 2:
            detail = "It holds counts of one point in time."
            found.add("one_dump", "/trace", detail, "Give several dumps, or a series.")
        windows = dumps if body.windows is None else body.windows
    return Source(traces=[trace], windows=windows)


def _request(body: SimulationBody, content: Mapping[str, Any] | None, found: Violations) -> PolicyRequest | None:
    said = body.model_dump(exclude_unset=True, exclude={*SERVICE, *KEPT})
    given: dict[str, Any] = {}
    if content is not None:
        given["plan"] = plan_of(content, "/plan", found)
    if body.model is not None:
        check_model(body.model, found)
        given["model"] = body.model
    if body.topology is not None:
        try:
            given["topology"] = topology_of(body.topology)
        except InputError as error:
            found.extend(error)
            given["topology"] = "1x1"  # reported already
    request: PolicyRequest | None = build(PolicyRequest, said, "", found, **given)
    if request is not None and request.machine is not None:
        try:
            Machine.parse(request.machine)
        except InputError as error:
            found.extend(error)
    return request


def run_simulation(attempt: Attempt, task: Task) -> Outcome:
    """Simulate on the stored series; write the figures, and the plan to run next, to the store.

    Raises
    ------
    InputError
        If series, machine, model and plan do not fit each other.
    StaleAttemptError
        If it was given to another attempt.
    """
    job, reporter = attempt.job, attempt.reporter
    begun = time.monotonic()
    reporter.deadline = begun + job.max_time_limit_s
    body = SimulationBody.model_validate(task.request | {"plan": None})
    found = Violations()
    request = _request(body, task.start, found)
    found.raise_if_any()
    assert request is not None
    done = simulate(_series(attempt, task, request), request=request.of_series(), tell=phases(attempt))
    if reporter.stale:
        raise StaleAttemptError
    elapsed_s = time.monotonic() - begun
    attempt.lease.finish(
        "succeeded",
        values={"elapsed_s": elapsed_s},
        plan=plan_text(done.plan),
        summary=json.dumps(done.as_dict(), allow_nan=False),
        message=replan_pays(attempt, task, replaces=task.request["plan"], reason=done.now["reason"])
        if done.now["replan"]
        else None,
    )
    return Outcome(status="succeeded", solver="simulation", elapsed_s=elapsed_s)


def _series(attempt: Attempt, task: Task, request: PolicyRequest) -> Series:
    if not task.traces:
        source = opened(attempt, task.request["trace"], task.trace_name, task.facts)
        assert isinstance(source, Trace | LoadCounts)
        return Series.of(source, windows=request.windows, by=request.by)
    times = [window.time for window in task.traces if window.time is not None]
    return series_of_each(
        [opened(attempt, window.id, window.name, window.facts) for window in task.traces],
        names=[window.name or window.id for window in task.traces],
        times=times or None,
    )
