"""Routes of everything that is queued: ask, list, look, watch, cancel, rename, delete.

Annotations here are evaluated where they stand, as the name of an id and the body differ between kinds.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from starlette.responses import Response

from api.http.bodies import in_helper
from api.http.problems import problems
from api.resources.context import ServicesOf, StoreOf
from api.resources.parameters import Cursor, Key, Limit, Prefer, Status, TagQuery
from api.resources.schemas import LabelsBody
from api.resources.searches.events import TEXT, revision_after, watched
from api.resources.searches.kinds import SearchKind, plan_file

__all__ = ["add_plan_file", "add_routes"]

LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", description="`id` of the last event that arrived: those after it are sent."),
]


def add_routes(
    router: APIRouter, kind: SearchKind, body: type[BaseModel], resource: type[BaseModel], page: type[BaseModel]
) -> None:
    """Add the routes of a kind of search.

    Parameters
    ----------
    router : APIRouter
    kind : SearchKind
    body : type
        Schema of a request.
    resource, page : type
        Schemas of the state of a search, and of a list of them.
    """
    name = kind.name
    place = f"/{{{name}_id}}"
    Id = Annotated[str, Path(alias=f"{name}_id")]
    Body: Any = body
    Statuses = Annotated[Sequence[Status], Query(description=f"Only {name}s with one of these.")]

    @router.post(
        "",
        status_code=202,
        response_model=resource,
        name=f"create_{name}",
        summary=f"Ask for a {name}",
        description=f"Queue a {name}. The answer is 202, or 200 if `Prefer: wait` was asked for and it is finished by "
        "then.",
        responses={
            200: {"model": resource, "description": f"The {name} is finished."},
            **problems(
                "malformed-json",
                "not-found",
                "too-large",
                "unsupported-media-type",
                "idempotency-key-reused",
                "queue-full",
                "quota-exceeded",
                "storage-full",
            ),
        },
    )
    @in_helper
    async def create(
        body: Body,
        request: Request,
        services: ServicesOf,
        store: StoreOf,
        prefer: Prefer = None,
        idempotency_key: Key = None,
    ) -> Response:
        return await kind.ask(request, services, store, body, idempotency_key)

    @router.get(
        "",
        response_model=page,
        name=f"list_{name}s",
        summary=f"List {name}s",
        description=f"List the {name}s without what they have found, the newest first.",
        responses=problems(),
    )
    def listed(
        request: Request,
        store: StoreOf,
        limit: Limit = 50,
        cursor: Cursor = None,
        status: Statuses = (),
        tag: TagQuery = (),
    ) -> Response:
        return kind.listed(request, store, limit, cursor, status, tag)

    @router.get(
        place,
        response_model=resource,
        name=f"get_{name}",
        summary=f"Look at a {name}",
        description=f"Return the state of a {name}, and what it has found so far. With `Prefer: wait`, the answer "
        "comes when it is finished, or, with `If-None-Match`, when anything is new.",
        responses={304: {"description": "Not modified"}, **problems("not-found")},
    )
    async def look(
        search_id: Id, request: Request, services: ServicesOf, store: StoreOf, prefer: Prefer = None
    ) -> Response:
        return await kind.look(request, services, store, search_id)

    def after(store: StoreOf, search_id: Id, last_event_id: LastEventId = None) -> int:
        return revision_after(kind, store, search_id, last_event_id)

    @router.get(
        f"{place}/events",
        response_class=EventSourceResponse,
        name=f"watch_{name}",
        summary=f"Watch a {name}",
        description=TEXT.format(name, name, name),
        responses=problems("not-found"),
    )
    async def watch(
        search_id: Id, request: Request, services: ServicesOf, revision: Annotated[int, Depends(after)]
    ) -> AsyncIterator[ServerSentEvent]:
        async for message in watched(search_id, request, services, revision):
            yield message

    @router.post(
        f"{place}/cancel",
        response_model=resource,
        name=f"cancel_{name}",
        summary=f"Cancel a {name}",
        description=f"Stop and keep what was found. A finished {name} stays as it is.",
        responses=problems("not-found"),
    )
    def cancel(search_id: Id, store: StoreOf) -> Response:
        return kind.cancel(store, search_id)

    @router.patch(
        place,
        response_model=resource,
        name=f"label_{name}",
        summary=f"Rename a {name}",
        description=f"Change the name or the tags of a {name}.",
        responses=problems("not-found"),
    )
    def label(search_id: Id, body: LabelsBody, store: StoreOf) -> Response:
        return kind.label(store, search_id, body)

    @router.delete(
        place,
        status_code=204,
        response_class=Response,
        name=f"delete_{name}",
        summary=f"Delete a {name}",
        description=f"Delete a {name} with everything that was found. A running one has to be cancelled first.",
        responses=problems("not-found", "not-finished"),
    )
    def delete(search_id: Id, store: StoreOf) -> Response:
        return kind.delete(store, search_id)


def add_plan_file(router: APIRouter, kind: SearchKind, description: str) -> None:
    """Add the route of the plan file that a kind of search finds.

    Parameters
    ----------
    router : APIRouter
    kind : SearchKind
    description : str
        Which plan it is.
    """
    name = kind.name
    Id = Annotated[str, Path(alias=f"{name}_id")]

    @router.get(
        f"/{{{name}_id}}/plan",
        response_model=dict[str, Any],
        name=f"get_{name}_file",
        summary=f"Take the plan file of a {name}",
        description=description,
        responses={
            200: {"description": "The plan file, as the command line writes it."},
            304: {"description": "Not modified"},
            **problems("not-found", "no-plan-yet"),
        },
    )
    def take(search_id: Id, request: Request, store: StoreOf) -> Response:
        return plan_file(kind, request, store, search_id)
