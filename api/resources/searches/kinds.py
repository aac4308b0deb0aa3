"""Plans and fronts as one mechanism: searches that the store queues, looked at, listed, cancelled and deleted alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from api.http.paging import decode_cursor, link_next, next_cursor
from api.http.problems import ProblemError
from api.resources.bodies import work_with
from api.resources.context import Services
from api.resources.responses import json_response
from api.resources.schemas import FrontBody, LabelsBody, PlanBody
from api.resources.searches.queueing import queue
from api.store.rows import ConflictError, PlanRow
from api.store.tenant import TenantStore

__all__ = ["SearchKind", "etag_of"]


@dataclass(frozen=True, kw_only=True)
class SearchKind:
    """A kind of search and the shape of its answers.

    Attributes
    ----------
    name : {"plan", "front"}
    finds : str
        What a search finds, for messages.
    retry_after_s : int
        When to look again at a search that is not finished.
    resource : callable
        Returns the answer, from a row and the texts of the documents found and the summary.
    page : callable
        Returns the answer of a list, from rows and the cursor of the next page.
    """

    name: Literal["plan", "front"]
    finds: str
    retry_after_s: int
    resource: Callable[[PlanRow, str | None, str | None], BaseModel]
    page: Callable[[Sequence[PlanRow], str | None], BaseModel]

    async def queue(
        self, request: Request, services: Services, store: TenantStore, body: PlanBody | FrontBody, key: str | None
    ) -> str:
        """Queue what a body asks for, unless the idempotency key says that it was before; return its id."""
        queued = await work_with(request, services, store, body, queue, key)
        await request.state.turn.end()
        if queued.new:
            services.parts.dispatcher.announce()
        return queued.id

    def answer(self, store: TenantStore, search_id: str) -> Response:
        """Return the state of a search with what it has found."""
        row, found, summary = store.plans.documents(search_id, self.name)
        if row is None:
            raise self.missing(search_id)
        retry = {} if row.finished else {"Retry-After": str(self.retry_after_s)}
        return json_response(self.resource(row, found, summary), headers={"ETag": etag_of(row), **retry})

    def found(self, store: TenantStore, search_id: str) -> tuple[PlanRow, str]:
        """Return a search and the text of what it has found; ``no-plan-yet`` if that is nothing."""
        row, found, _ = store.plans.documents(search_id, self.name)
        if row is None:
            raise self.missing(search_id)
        if found is None:
            retry = {} if row.finished else {"Retry-After": str(self.retry_after_s)}
            detail = f"{self.name.capitalize()} {search_id} is {row.status} and has no {self.finds}."
            raise ProblemError("no-plan-yet", detail, headers=retry)
        return row, found

    def listed(
        self,
        request: Request,
        store: TenantStore,
        limit: int,
        cursor: str | None,
        statuses: Sequence[str],
        tags: Sequence[str],
    ) -> Response:
        """Return a page of searches without what they have found, the newest first."""
        rows = store.plans.page(limit + 1, decode_cursor(cursor), statuses, self.name, tags)
        following = next_cursor(rows, limit)
        return json_response(self.page(rows[:limit], following), headers=link_next(request, following))

    def cancel(self, store: TenantStore, search_id: str) -> Response:
        """Stop a search, and return its state; a finished one stays as it is."""
        if store.plans.cancel(search_id, self.name) is None:
            raise self.missing(search_id)
        return self.answer(store, search_id)

    def label(self, store: TenantStore, search_id: str, body: LabelsBody) -> Response:
        """Change name or tags, and return the state."""
        if not store.plans.label(search_id, body.model_dump(exclude_unset=True), self.name):
            raise self.missing(search_id)
        return self.answer(store, search_id)

    def delete(self, store: TenantStore, search_id: str) -> Response:
        """Delete a search with what it has found; ``not-finished`` if it runs and was not cancelled."""
        try:
            if not store.plans.delete(search_id, self.name):
                raise self.missing(search_id)
        except ConflictError as conflict:
            raise ProblemError(conflict.slug, conflict.detail) from None
        return Response(status_code=204)

    def missing(self, search_id: str) -> ProblemError:
        """Return the answer to an id that no search of this kind has."""
        return ProblemError("not-found", f"There is no {self.name} {search_id[:100]!r}.")


def etag_of(row: PlanRow) -> str:
    """Return the weak tag of a state: it changes with all news."""
    return f'W/"{row.id[-8:]}-{row.revision}"'
