"""Queueing: a body is checked against what is stored, and defaults that matter later are written out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from api.http.problems import ProblemError
from api.resources.named import known_plan, plan_text_named, trace_named
from api.resources.requests import request_of
from api.resources.schemas import FrontBody, PlanBody
from api.resources.searches.checks import check
from api.resources.searches.expected import expected_s
from api.resources.storage import refuse_when_full
from api.resources.topologies.named import with_topology
from api.settings.settings import Settings
from api.store.rows import ConflictError, SeriesRow
from api.store.tenant import TenantStore
from placement import Plan
from placement.topology.file import topology_to_dict
from solvers import Request
from traces import InputError, Violations

__all__ = ["Checked", "Queued", "checked", "queue"]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What the store keeps of a request.

    Attributes
    ----------
    request : dict
        The body; what it has of `name`, `tags` and `trace` is kept beside it too.
    start : str or None
        Text of the plan to start from, or that runs.
    expected_s : float
        How long a worker will be busy.
    replaces : str or None
        Id of the plan that this one is to replace.
    series : SeriesRow or None
        In place of a trace.
    series_length : int or None
        Its windows.
    traces : tuple of str
        In place of a trace: the ids of several.
    """

    request: dict[str, Any]
    start: str | None
    expected_s: float
    replaces: str | None = None
    series: SeriesRow | None = None
    series_length: int | None = None
    traces: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Queued:
    """The id of a search, and whether this request made it (or an earlier one with the same idempotency key)."""

    id: str
    new: bool


def checked(body: PlanBody | FrontBody, settings: Settings, store: TenantStore) -> Checked:
    """Check a body of a plan or front.

    Raises
    ------
    InputError
        With all violations that can be told without reading the trace.
    """
    found = Violations()
    text = _start(store, body, found)
    replaces = body.replaces if isinstance(body, PlanBody) else None
    if replaces is not None:
        known_plan(store, replaces, "/replaces", found)
    request: Request | None = None
    try:
        body = with_topology(store, body)
        start = None if text is None else Plan.from_dict(json.loads(text), "/start")
        request = request_of(body, settings.max_time_limit_s, start)
    except InputError as error:
        found.extend(error)
    trace = trace_named(store, body.trace, found)
    found.raise_if_any()
    assert request is not None
    assert trace is not None
    check(request, trace.facts, settings.max_job_bytes)
    content = body.model_dump(mode="json")
    if body.topology is None:  # what follows from the machine is told, as whoever asks for another plan needs it
        content["topology"] = topology_to_dict(request.machine)
    content["limits"]["time_s"] = request.limits.time_s  # left out means the default, null means none
    expected = expected_s(request, trace.bytes, settings.max_time_limit_s)
    return Checked(request=content, start=text, expected_s=expected, replaces=replaces)


def queue(
    body: BaseModel,
    settings: Settings,
    store: TenantStore,
    kind: str,
    check: Callable[[Any, Settings, TenantStore], Checked],
    key: str | None,
) -> Queued:
    """Check a body and queue what it asks for; what was queued before, if the idempotency key says so.

    Raises
    ------
    InputError
    ProblemError
        If the key came with another body, too much waits, or the disk is full.
    """
    # What was left out stays out: a limit that is null means something else than one that is not there.
    content = kind + json.dumps(body.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    body_hash = hashlib.sha256(content.encode()).hexdigest()
    key_age_s = settings.idempotency_hours * 3600
    try:
        if key is not None and (earlier := store.plans.of_key(key, body_hash, key_age_s, kind)) is not None:
            return Queued(id=earlier.id, new=False)
        refuse_when_full(settings)
        found = check(body, settings, store)
        created = store.plans.add(
            found.request,
            max_queued=settings.max_queued_plans,
            max_active=settings.tenant_active_plans,
            kind=kind,
            tags=found.request["tags"],
            start=found.start,
            replaces=found.replaces,
            series=found.series,
            series_length=found.series_length,
            traces_of=found.traces,
            key=key,
            body_hash=body_hash,
            key_age_s=key_age_s,
            expected_s=found.expected_s,
        )
        return Queued(id=created.row.id, new=created.new)
    except ConflictError as conflict:
        retry = {"Retry-After": "10"} if conflict.slug in ("queue-full", "quota-exceeded") else {}
        raise ProblemError(conflict.slug, conflict.detail, headers=retry) from None


def _start(store: TenantStore, body: PlanBody | FrontBody, found: Violations) -> str | None:
    return None if body.start is None else plan_text_named(store, body.start, "/start", found)
