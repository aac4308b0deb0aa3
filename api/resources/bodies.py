"""Work with the body of a request: of a small one in a thread, of a large one in the process that reads it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.http.bodies import unread_content
from api.resources.context import Services
from api.resources.helped import in_turn
from api.settings.settings import Settings
from api.store.database import Database
from api.store.tenant import TenantStore

__all__ = ["work_with"]

Result = TypeVar("Result")


async def work_with(
    request: Request,
    services: Services,
    store: TenantStore,
    body: BaseModel,
    function: Callable[..., Result],
    *arguments: Any,
) -> Result:
    """Call ``function(body, settings, store, *arguments)`` when it is the tenant's turn.

    Parameters
    ----------
    request : Request
    services : Services
    store : TenantStore
    body : BaseModel
        As the route got it, read or not.
    function, *arguments
        All pickle, and what it returns or raises as well.

    Raises
    ------
    ProblemError
    """
    if (content := unread_content(request)) is not None:
        task = (_with_store, function, services.settings, store.tenant, *arguments)
        found: Result = await services.bodies.work(content, type(body), *task)
        return found
    async with in_turn(services.checking, store.tenant):
        return await run_in_threadpool(function, body, services.settings, store, *arguments)


def _with_store(
    body: BaseModel, function: Callable[..., Result], settings: Settings, tenant: str, *arguments: Any
) -> Result:
    return function(body, settings, TenantStore(_database(settings.store_url), tenant), *arguments)


@cache
def _database(url: str) -> Database:
    return Database(url)
