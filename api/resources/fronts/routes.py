"""Fronts: many plans in one call, from least traffic to best balance (or fewest replicas, or fewest bytes moved)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.http.access import StoreOf
from api.http.common import (
    Cursor,
    Key,
    Limit,
    Status,
    TagQuery,
    decode_cursor,
    link_next,
    next_cursor,
    not_modified,
    problems,
)
from api.http.problems import ProblemError
from api.http.strict import StrictRoute
from api.resources.answers import FrontList, FrontResource, json_response, loads
from api.resources.plans.asked import ask, cancel, drop, missing, relabel, state_headers
from api.resources.schemas import FrontBody, LabelsBody
from api.service.services import ServicesOf
from api.store.tenant_store import TenantStore

__all__ = ["router"]

router = APIRouter(prefix="/v1/fronts", tags=["fronts"], route_class=StrictRoute)
RETRY_AFTER_S = "2"


@router.post(
    "",
    status_code=202,
    response_model=FrontResource,
    summary="Ask for a front",
    responses=problems(
        "malformed-json",
        "not-found",
        "too-large",
        "unsupported-media-type",
        "idempotency-key-reused",
        "queue-full",
        "quota-exceeded",
    ),
)
def create_front(body: FrontBody, services: ServicesOf, store: StoreOf, idempotency_key: Key = None) -> Response:
    """Queue the searches of a front; they take turns with plans."""
    front_id = ask(services, store, body, idempotency_key)
    response = _answer(store, front_id)
    response.status_code = 202
    response.headers["Location"] = f"/v1/fronts/{front_id}"
    return response


@router.get("", response_model=FrontList, summary="List fronts", responses=problems())
def list_fronts(
    request: Request,
    store: StoreOf,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: Annotated[Sequence[Status], Query(description="Only fronts with one of these.")] = (),
    tag: TagQuery = (),
) -> Response:
    """List the fronts without their points, the newest first."""
    rows = store.list_plans(limit + 1, decode_cursor(cursor), status, "front", tag)
    following = next_cursor(rows, limit)
    page = FrontList(items=[FrontResource.of(row, None) for row in rows[:limit]], next_cursor=following)
    return json_response(page, headers=link_next(request, following))


@router.get(
    "/{front_id}",
    response_model=FrontResource,
    summary="Look at a front",
    responses={304: {"description": "Not modified"}, **problems("not-found")},
)
def get_front(front_id: str, request: Request, store: StoreOf) -> Response:
    """Return the state of the searches, and the points once they have ended."""
    return not_modified(request, _answer(store, front_id))


@router.get(
    "/{front_id}/points/{number}/plan",
    response_model=dict[str, Any],
    summary="Take the plan file of a point",
    responses=problems("not-found", "no-plan-yet"),
)
def get_point(front_id: str, number: Annotated[int, Path(ge=0, le=10_000)], store: StoreOf) -> Response:
    """Return a point's plan as a plan file and nothing else. Points are counted from 0."""
    row, text, _ = store.documents(front_id, "front")
    if row is None:
        raise missing("front", front_id)
    document = loads(text)
    if document is None:
        raise ProblemError("no-plan-yet", f"Front {front_id} is {row.status} and has no points.")
    if number >= len(document["plans"]):
        raise ProblemError("not-found", f"Front {front_id} has {len(document['plans'])} points.")
    return Response(document["plans"][number], 200, media_type="application/json")


@router.post(
    "/{front_id}/cancel", response_model=FrontResource, summary="Cancel a front", responses=problems("not-found")
)
def cancel_front(front_id: str, store: StoreOf) -> Response:
    """Stop the searches and keep the points that there are. A finished front stays as it is."""
    cancel(store, "front", front_id)
    return _answer(store, front_id)


@router.patch("/{front_id}", response_model=FrontResource, summary="Rename a front", responses=problems("not-found"))
def label_front(front_id: str, body: LabelsBody, store: StoreOf) -> Response:
    """Change the name or the tags of a front."""
    relabel(store, "front", front_id, body)
    return _answer(store, front_id)


@router.delete(
    "/{front_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a front",
    responses=problems("not-found", "not-finished"),
)
def delete_front(front_id: str, store: StoreOf) -> Response:
    """Delete a front with its plans. A running one has to be cancelled first."""
    return drop(store, "front", front_id)


def _answer(store: TenantStore, front_id: str) -> Response:
    row, text, _ = store.documents(front_id, "front")
    if row is None:
        raise missing("front", front_id)
    document = loads(text)
    resource = FrontResource.of(row, None if document is None else document["front"])
    return json_response(resource, headers=state_headers(row, RETRY_AFTER_S))
