"""Routes that plans and fronts share: list, cancel, rename, delete.

Annotations here are evaluated where they stand, as the name of an id differs between kinds.
"""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from api.http.problems import problems
from api.resources.context import StoreOf
from api.resources.parameters import Cursor, Limit, Status, TagQuery
from api.resources.schemas import LabelsBody
from api.resources.searches.kinds import SearchKind

__all__ = ["add_routes"]


def add_routes(router: APIRouter, kind: SearchKind, resource: type[BaseModel], page: type[BaseModel]) -> None:
    """Add the routes of a kind of search.

    Parameters
    ----------
    router : APIRouter
    kind : SearchKind
    resource, page : type
        Schemas of the state of a search, and of a list of them.
    """
    name = kind.name
    place = f"/{{{name}_id}}"
    Id = Annotated[str, Path(alias=f"{name}_id")]
    Statuses = Annotated[Sequence[Status], Query(description=f"Only {name}s with one of these.")]

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

    @router.post(
        f"{place}/cancel",
        response_model=resource,
        name=f"cancel_{name}",
        summary=f"Cancel a {name}",
        description=f"Stop searching and keep what was found. A finished {name} stays as it is.",
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
