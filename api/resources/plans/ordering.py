"""From a body to what is queued: checked against the stored trace, the defaults that matter later written out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from threading import BoundedSemaphore
from typing import Any, TypeVar

from api.http.problems import ProblemError
from api.planning import PlanRequest
from api.resources.plans.parsing import check, plan_request
from api.resources.schemas import EvaluationBody, FrontBody, PlanBody, TopologyFile
from api.service.services import Services
from api.store.rows import ConflictError, Created
from api.store.tenant_store import TenantStore
from placement import Plan
from traces import InputError, Violations

__all__ = ["Order", "order", "queue", "with_topology"]

Body = TypeVar("Body", PlanBody, EvaluationBody)

_checks = BoundedSemaphore(2)  # bounds the memory of topologies and constraints, whatever the number of requests


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the store keeps of a request: the body, and the text of the plan to start from."""

    request: dict[str, Any]
    start: str | None


def order(services: Services, store: TenantStore, body: PlanBody) -> Order:
    """Check a body.

    Raises
    ------
    InputError
        With all violations that can be told without reading the trace.
    """
    with _checks:
        return _order(services, store, body)


def _order(services: Services, store: TenantStore, body: PlanBody) -> Order:
    settings, found = services.settings, Violations()
    request: PlanRequest | None = None
    try:
        body = with_topology(store, body)
        request = plan_request(body, settings.max_time_limit_s)
    except InputError as error:
        found.extend(error)
    trace = store.trace(body.trace)
    if trace is None:
        found.add("unknown_trace", "/trace", f"There is no trace {body.trace}.", "Upload it with POST /v1/traces.")
    start = _start(store, body, found)
    if isinstance(body, FrontBody) and body.against == "bytes_moved" and body.start is None:
        detail = "Bytes moved are counted from the plan that runs now."
        found.add("start_missing", "/start", detail, "Name that plan, as one of this service's.")
    found.raise_if_any()
    assert request is not None
    assert trace is not None
    if start is not None:
        request = replace(request, start=Plan.from_dict(json.loads(start), "/start"))
    check(request, trace.facts, settings.max_job_bytes)
    content = body.model_dump(mode="json")
    content["limits"]["time_limit_s"] = request.limits.time_s  # left out means 10 s, null means none
    return Order(request=content, start=start)


def queue(services: Services, store: TenantStore, body: PlanBody, key: str | None) -> Created:
    """Check a body and queue what it asks for; what was queued before, if the idempotency key says so.

    Raises
    ------
    InputError
    ProblemError
        If the key came with another body, or too much waits.
    """
    kind = "front" if isinstance(body, FrontBody) else "plan"
    # What was left out stays out: a limit that is null means something else than one that is not there.
    content = kind + json.dumps(body.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    body_hash = hashlib.sha256(content.encode()).hexdigest()
    settings = services.settings
    key_age_s = settings.idempotency_hours * 3600
    try:
        if key is not None and (earlier := store.plan_of_key(key, body_hash, key_age_s, kind)) is not None:
            return Created(row=earlier, new=False)
        ordered = order(services, store, body)
        return store.add_plan(
            ordered.request,
            max_queued=settings.max_queued_plans,
            max_active=settings.tenant_active_plans,
            kind=kind,
            tags=body.tags,
            start=ordered.start,
            key=key,
            body_hash=body_hash,
            key_age_s=key_age_s,
        )
    except ConflictError as conflict:
        retry = {"Retry-After": "10"} if conflict.slug in ("queue-full", "quota-exceeded") else {}
        raise ProblemError(conflict.slug, conflict.detail, headers=retry) from None


def with_topology(store: TenantStore, body: Body) -> Body:
    """Return the body with the content of the stored topology that it names, so that it does not change any more.

    Raises
    ------
    InputError
        If there is no such topology.
    """
    named = body.topology
    if not (isinstance(named, str) and named.startswith("topo_")):
        return body
    row = store.topology(named)
    if row is None:
        detail = f"There is no topology {named[:100]}."
        raise InputError.of("unknown_topology", "/topology", detail, "Make it with POST /v1/topologies.")
    content = row.content if isinstance(row.content, str) else TopologyFile.model_validate(row.content)
    return body.model_copy(update={"topology": content})


def _start(store: TenantStore, body: PlanBody, found: Violations) -> str | None:
    if body.start is None:
        return None
    row, text, _ = store.documents(body.start)
    if row is None:
        found.add("unknown_plan", "/start", f"There is no plan {body.start}.", "Name a plan of this service.")
    elif text is None:
        found.add(
            "no_plan_yet", "/start", f"Plan {body.start} has found nothing so far.", "Wait for it, or name another."
        )
    return text
