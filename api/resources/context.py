"""What the routes of one service share, and how a route asks for it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from api.http.access import PrincipalOf
from api.http.bodies import Bodies
from api.jobs.dispatcher import Dispatcher
from api.jobs.helpers import Helpers
from api.jobs.watching import Watching
from api.settings.settings import Settings
from api.store.audit import AuditLog
from api.store.blobs import Blobs
from api.store.keys import Keys
from api.store.store import Store
from api.store.tenant import TenantStore
from api.telemetry.metrics import Metrics
from api.turns import Turns

__all__ = ["Running", "Services", "ServicesOf", "StoreOf"]


@dataclass(frozen=True, kw_only=True)
class Running:
    """What there is only while a service runs.

    Attributes
    ----------
    blobs : Blobs
    dispatcher : Dispatcher
    helpers : Helpers
    imports : Turns
        Threads that fetch files: each import holds one as long as its source takes.
    """

    blobs: Blobs
    dispatcher: Dispatcher
    helpers: Helpers
    imports: Turns[int]


@dataclass(kw_only=True)
class Services:
    """What the routes of a service share.

    Attributes
    ----------
    settings : Settings
    store : Store
    keys : Keys
    audit : AuditLog
    metrics : Metrics
    draining : threading.Event
        Set when the server begins to stop; long waits end then.
    holding : threading.Lock
        Held while a trace's row and its file change together.
    uploading : set of str
        Uploads in parts that a request sends to just now.
    bodies : Bodies
        Reads large bodies of requests.
    checking : Turns
        For requests that are checked against a trace, before they are queued.
    watching : Watching
        News of the plans that somebody watches.
    looking : Task or None
        Whether the service is ready, looked at just now for all who ask.
    running : Running or None
        Set while the service runs.
    """

    settings: Settings
    store: Store
    keys: Keys
    audit: AuditLog
    metrics: Metrics
    bodies: Bodies
    checking: Turns[int]
    watching: Watching
    draining: threading.Event = field(default_factory=threading.Event)
    holding: threading.Lock = field(default_factory=threading.Lock)
    uploading: set[str] = field(default_factory=set)
    looking: asyncio.Task[str | None] | None = None
    running: Running | None = None

    @property
    def parts(self) -> Running:
        """What there is while the service runs."""
        assert self.running is not None, "the service was not started"
        return self.running


# Dependencies that do not block are coroutines: others cost a change of threads for every request.
async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _store(request: Request, principal: PrincipalOf) -> TenantStore:
    services: Services = request.app.state.services
    return services.store.of(principal.tenant)


ServicesOf = Annotated[Services, Depends(_services)]
StoreOf = Annotated[TenantStore, Depends(_store)]
