"""Everything that is queued as one mechanism: asked for, looked at, watched, listed, cancelled and deleted alike."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.http.access import CHALLENGE, still_valid
from api.http.conditional import matches, not_modified, wait_of
from api.http.paging import begin_of, link_next, next_cursor
from api.http.problems import ProblemError
from api.resources.bodies import work_with
from api.resources.context import Services
from api.resources.responses import json_response
from api.resources.schemas import LabelsBody
from api.resources.searches.queueing import Checked, queue
from api.settings.settings import Settings
from api.store.rows import ConflictError, PlanRow
from api.store.tenant import TenantStore

__all__ = ["SearchKind", "plan_file"]

LOOK_S = 0.5  # between two looks at whether who waits may go on, and the service does


@dataclass(frozen=True, kw_only=True)
class SearchKind:
    """A kind of what is queued, and the shape of its answers.

    Attributes
    ----------
    name : {"plan", "front", "replan", "simulation", "mixture"}
    finds : str
        What it finds, for messages.
    check : callable
        Returns what the store keeps of a body, settings and the tenant's store given, or refuses it; pickles.
    retry_after_s : int
        When to look again at one that is not finished.
    resource : callable
        Returns the answer, from a row and the texts of the documents found and the summary.
    page : callable
        Returns the answer of a list, from rows and the cursor of the next page.
    """

    name: Literal["plan", "front", "replan", "simulation", "mixture"]
    finds: str
    check: Callable[[Any, Settings, TenantStore], Checked]
    retry_after_s: int
    resource: Callable[[PlanRow, str | None, str | None], BaseModel]
    page: Callable[[Sequence[PlanRow], str | None], BaseModel]

    async def ask(
        self, request: Request, services: Services, store: TenantStore, body: BaseModel, key: str | None
    ) -> Response:
        """Queue what a body asks for, unless the idempotency key says that it was before; 202, or 200 if it is over."""
        queued = await work_with(request, services, store, body, queue, self.name, self.check, key)
        await request.state.turn.end()
        if queued.new:
            services.parts.dispatcher.announce()
        wait_s = wait_of(request, services.settings.max_wait_s)
        if wait_s is not None:
            await self._wait(request, services, store, queued.id, wait_s)
        response = await run_in_threadpool(self.answer, store, queued.id)
        response.headers["Location"] = f"/v1/{self.name}s/{queued.id}"
        if "retry-after" in response.headers:
            response.status_code = 202
        if wait_s is not None:
            response.headers["Preference-Applied"] = f"wait={wait_s:g}"
        return response

    async def look(self, request: Request, services: Services, store: TenantStore, search_id: str) -> Response:
        """Return the state with what was found, after the wait that the client prefers."""
        wait_s = wait_of(request, services.settings.max_wait_s)
        if wait_s is not None:
            await self._wait(request, services, store, search_id, wait_s, request.headers.get("if-none-match"))
        return not_modified(request, await run_in_threadpool(self.answer, store, search_id))

    async def _wait(
        self,
        request: Request,
        services: Services,
        store: TenantStore,
        search_id: str,
        wait_s: float,
        known_etag: str | None = None,
    ) -> None:
        """Wait until it is finished, or differs from what the client knows; without holding a thread.

        All who wait for it, or watch it, share one look at the database.

        Raises
        ------
        ProblemError
            401 as soon as the key or token that was sent is not valid any more.
        """
        deadline = time.monotonic() + wait_s
        row = await run_in_threadpool(store.plans.get, search_id, self.name)
        if _settled(row, known_etag):
            return
        async with services.watching.of(search_id) as feed:
            while (left := deadline - time.monotonic()) > 0 and not services.draining.is_set():
                if not await still_valid(request):
                    raise ProblemError("unauthorized", "The key or token is not valid any more.", headers=CHALLENGE)
                if await request.is_disconnected():
                    return
                # Without a state that the client knows only the end counts: nobody reads each new incumbent for it.
                if not (feed.over or (known_etag is not None and row is not None and feed.after(row.revision))):
                    await feed.news(min(LOOK_S, left))
                    continue
                row = await run_in_threadpool(store.plans.get, search_id, self.name)
                if _settled(row, known_etag):
                    return

    def answer(self, store: TenantStore, search_id: str) -> Response:
        """Return the state of a search with what it has found."""
        row, found, summary = store.plans.documents(search_id, self.name)
        if row is None:
            raise self.missing(search_id)
        retry = {} if row.finished else {"Retry-After": str(self.retry_after_s)}
        return json_response(self.resource(row, found, summary), headers={"ETag": _etag_of(row), **retry})

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
        rows, more = store.plans.page(limit, begin_of(store, cursor), statuses, self.name, tags)
        following = next_cursor(store, rows, more)
        return json_response(self.page(rows, following), headers=link_next(request, following))

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


def plan_file(kind: SearchKind, request: Request, store: TenantStore, search_id: str) -> Response:
    """Return the plan that was found as a plan file and nothing else."""
    _, text = kind.found(store, search_id)
    etag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
    return not_modified(request, Response(text, 200, {"ETag": etag}, "application/json"))


def _settled(row: PlanRow | None, known_etag: str | None) -> bool:
    """Whether there is nothing to wait for: it is finished or gone, or not what the client knows."""
    return row is None or row.finished or (known_etag is not None and not matches(known_etag, _etag_of(row)))


def _etag_of(row: PlanRow) -> str:
    """Return the weak tag of a state: it changes with all news."""
    return f'W/"{row.id[-8:]}-{row.revision}"'
