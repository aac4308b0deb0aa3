"""News of what is queued as server-sent events: what happened since a revision, then live, to the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import lru_cache

from fastapi.sse import ServerSentEvent
from starlette.requests import Request

from api.http.access import still_valid
from api.http.problems import ProblemError
from api.resources.context import Services
from api.resources.searches.answers import News
from api.resources.searches.kinds import SearchKind
from api.store.events import PlanEvent
from api.store.tenant import TenantStore
from traces import Violation

__all__ = ["TEXT", "revision_after", "watched"]

CHECK_S = 1.0  # between two looks at whether the watcher may go on
LONGEST_S = 600.0  # proxies and clients forget connections; whoever comes back misses nothing
RETRY_MS = 1000
KIND = {"queued": "status", "running": "incumbent"}
TEXT = """Send every change of a {}: `status`, `incumbent` (score, bound or gap are new), and `done` at the end.

The first events are those that a client has missed: all, or those after `Last-Event-ID`. `id` is the {}'s
revision. After ten minutes comes `reconnect`: ask again, with the last id. `deleted` ends the stream of a {} that
is no more. The stream ends at once when the key or token that it was asked for with does."""


def revision_after(kind: SearchKind, store: TenantStore, search_id: str, last_event_id: str | None) -> int:
    """Return the revision to begin after; errors come as problem documents, before the stream begins."""
    if store.plans.get(search_id, kind.name) is None:
        raise kind.missing(search_id)
    if last_event_id is None or last_event_id == "":
        return 0
    if not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) < 10):
        detail = f"{last_event_id[:40]!r} is no id of an event."
        violation = Violation(
            code="last_event_id", pointer="Last-Event-ID:", detail=detail, remedy="Send the id of an event, or none."
        )
        raise ProblemError("invalid-request", detail, [violation])
    return int(last_event_id)


async def watched(search_id: str, request: Request, services: Services, after: int) -> AsyncIterator[ServerSentEvent]:
    """Iterate over the changes after a revision."""
    deadline, ended = time.monotonic() + LONGEST_S, False
    async with services.watching.of(search_id) as feed:
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
    return News(at=datetime.fromtimestamp(event.at, UTC), revision=event.revision, **event.data).model_dump_json()


def _message(event: PlanEvent) -> ServerSentEvent:
    data = event.data
    kind = KIND.get(data["status"], "done")
    if kind == "incumbent" and data["score"] is None and data["bound"] is None:
        kind = "status"
    return ServerSentEvent(event=kind, id=str(event.revision), raw_data=_text(event))
