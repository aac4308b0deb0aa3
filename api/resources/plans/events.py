"""News of a plan as server-sent events: what happened since a revision, then live, to the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.http.access import still_valid
from api.http.problems import ProblemError, problems
from api.http.strict import StrictRoute
from api.resources.context import ServicesOf, StoreOf
from api.resources.plans.answers import PlanNews
from api.store.events import PlanEvent
from traces import Violation

__all__ = ["router"]

router = APIRouter(prefix="/v1/plans", tags=["plans"], route_class=StrictRoute)

CHECK_S = 1.0  # between two looks at whether the watcher may go on
LONGEST_S = 600.0  # proxies and clients forget connections; whoever comes back misses nothing
RETRY_MS = 1000
KIND = {"queued": "status", "running": "incumbent"}
LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", description="`id` of the last event that arrived: those after it are sent."),
]


def _after(store: StoreOf, plan_id: str, last_event_id: LastEventId = None) -> int:
    """Return the revision to begin after; errors come as problem documents, before the stream begins."""
    if store.plans.get(plan_id) is None:
        raise ProblemError("not-found", f"There is no plan {plan_id[:100]!r}.")
    if last_event_id is None or last_event_id == "":
        return 0
    if not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) < 10):
        detail = f"{last_event_id[:40]!r} is no id of an event."
        violation = Violation(
            code="last_event_id", pointer="Last-Event-ID:", detail=detail, remedy="Send the id of an event, or none."
        )
        raise ProblemError("invalid-request", detail, [violation])
    return int(last_event_id)


@router.get(
    "/{plan_id}/events",
    response_class=EventSourceResponse,
    summary="Watch a plan",
    responses=problems("not-found"),
)
async def watch_plan(
    plan_id: str, request: Request, services: ServicesOf, after: Annotated[int, Depends(_after)]
) -> AsyncIterator[ServerSentEvent]:
    """Send every change of a plan: `status`, `incumbent` (score, bound or gap are new), and `done` at the end.

    The first events are those that a client has missed: all, or those after `Last-Event-ID`. `id` is the plan's
    revision. After ten minutes comes `reconnect`: ask again, with the last id. `deleted` ends the stream of a plan that
    is no more. The stream ends at once when the key or token that it was asked for with does.
    """
    deadline, ended = time.monotonic() + LONGEST_S, False
    async with services.watching.of(plan_id) as feed:
        while True:
            for event in feed.after(after):
                after, ended = event.revision, event.data["status"] not in KIND
                yield _message(event)
            if feed.over and not feed.after(after):
                if feed.deleted and not ended:
                    yield ServerSentEvent(event="deleted", data={})
                return
            if time.monotonic() > deadline or services.draining.is_set():
                yield ServerSentEvent(event="reconnect", data={}, retry=RETRY_MS)
                return
            if not await still_valid(request) or await request.is_disconnected():
                return
            await feed.news(CHECK_S)


@lru_cache(1000)  # what fifty watchers are told is written once
def _text(event: PlanEvent) -> str:
    return PlanNews(at=datetime.fromtimestamp(event.at, UTC), revision=event.revision, **event.data).model_dump_json()


def _message(event: PlanEvent) -> ServerSentEvent:
    data = event.data
    kind = KIND.get(data["status"], "done")
    if kind == "incumbent" and data["score"] is None and data["bound"] is None:
        kind = "status"
    return ServerSentEvent(event=kind, id=str(event.revision), raw_data=_text(event))
