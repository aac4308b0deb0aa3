"""What plans and fronts have in common, as both are searches that the store queues."""

from __future__ import annotations

from starlette.responses import Response

from api.http.problems import ProblemError
from api.resources.plans.ordering import queue
from api.resources.schemas import LabelsBody, PlanBody
from api.service.services import Services
from api.store.models import plans
from api.store.rows import ConflictError, PlanRow
from api.store.tenant_store import TenantStore

__all__ = ["ask", "cancel", "drop", "etag_of", "missing", "relabel", "state_headers"]


def ask(services: Services, store: TenantStore, body: PlanBody, key: str | None) -> str:
    """Queue what a body asks for, unless the idempotency key says that it was before; return its id."""
    created = queue(services, store, body, key)
    if created.new:
        services.parts.dispatcher.announce()
    return created.row.id


def cancel(store: TenantStore, kind: str, asked_id: str) -> None:
    """Stop a search; ``not-found`` if there is none."""
    if store.cancel(asked_id, kind) is None:
        raise missing(kind, asked_id)


def relabel(store: TenantStore, kind: str, asked_id: str, body: LabelsBody) -> None:
    """Change name or tags; ``not-found`` if there is none."""
    changes = body.model_dump(exclude_unset=True)
    if store.plan(asked_id, kind) is None or not store.label(plans, asked_id, changes):
        raise missing(kind, asked_id)


def drop(store: TenantStore, kind: str, asked_id: str) -> Response:
    """Delete with everything that was found; ``not-found``, or ``not-finished`` if it runs and was not cancelled."""
    try:
        if not store.delete_plan(asked_id, kind):
            raise missing(kind, asked_id)
    except ConflictError as conflict:
        raise ProblemError(conflict.slug, conflict.detail) from None
    return Response(status_code=204)


def state_headers(row: PlanRow, retry_after_s: str) -> dict[str, str]:
    """Return the tag of a state, and when to look again if it will change."""
    return {"ETag": etag_of(row)} | ({} if row.finished else {"Retry-After": retry_after_s})


def etag_of(row: PlanRow) -> str:
    """Return the weak tag of a state: it changes with all news."""
    return f'W/"{row.id[-8:]}-{row.revision}"'


def missing(kind: str, asked_id: str) -> ProblemError:
    """Return the answer to an id that nothing has."""
    return ProblemError("not-found", f"There is no {kind} {asked_id[:100]!r}.")
