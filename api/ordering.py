"""From a body to what is queued: checked against the stored trace, the defaults that matter later written out."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from threading import BoundedSemaphore
from typing import Any

from api.parsing import check, plan_request
from api.planning import PlanRequest
from api.schemas import PlanBody
from api.services import Services
from api.store import TenantStore
from placement.files import plan_from_dict
from traces import InputError, Violations

__all__ = ["Order", "order"]

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
        request = plan_request(body, settings.max_time_limit_s)
    except InputError as error:
        found.extend(error)
    trace = store.trace(body.trace)
    if trace is None:
        found.add("unknown_trace", "/trace", f"There is no trace {body.trace}.", "Upload it with POST /v1/traces.")
    start = _start(store, body, found)
    found.raise_if_any()
    assert request is not None
    assert trace is not None
    if start is not None:
        request = replace(request, start=plan_from_dict(json.loads(start), "/start"))
    check(request, trace.facts, settings.max_job_bytes)
    content = body.model_dump(mode="json")
    content["limits"]["time_limit_s"] = request.limits.time_s  # left out means 10 s, null means none
    return Order(request=content, start=start)


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
