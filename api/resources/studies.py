"""Requests that are answered when the work is done: a body, a stored trace, and what a helper makes of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from api.resources.bodies import work_with
from api.resources.context import Services
from api.resources.helped import look_at
from api.resources.responses import json_response
from api.settings.settings import Settings
from api.store.rows import TraceRow
from api.store.tenant import TenantStore

__all__ = ["studied"]

Body = TypeVar("Body", bound=BaseModel)
Task = TypeVar("Task")


async def studied(
    request: Request,
    services: Services,
    store: TenantStore,
    body: Body,
    *,
    what: str,
    prepare: Callable[[Body, Settings, TenantStore], tuple[Task, TraceRow | None]],
    work: Callable[[Task, int], Any],
    answer: type[BaseModel],
) -> Response:
    """Do what a body asks for, and answer.

    Parameters
    ----------
    what : str
        What is done, to begin a sentence.
    prepare : callable
        Checks the body, and returns the task with its trace, if it has one.
    work : callable
        Does the task, within so many bytes of memory, in a helper.
    answer : type
        What it returns as an answer.
    """
    task, trace = await work_with(request, services, store, body, prepare)
    await request.state.turn.end()
    size = 0 if trace is None else trace.bytes
    result = await look_at(services, store.tenant, size, what, work, task, services.settings.max_job_bytes)
    return json_response(answer.model_validate(result))
