"""Work of requests that takes long, in turns by tenant, with what a client is told when it does not come to an end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import BrokenExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from api.http.problems import ProblemError
from api.jobs.helpers import TooSlowError
from api.resources.context import Services
from api.store.rows import TraceRow
from api.turns import TooManyWaitingError, Turns
from traces import InputError, Violation

__all__ = ["in_turn", "look", "look_at", "read_upload"]

Result = TypeVar("Result")


async def look(
    services: Services, trace: TraceRow, what: str, function: Callable[..., Result], *arguments: Any
) -> Result:
    """Have a helper look at a stored trace; see `look_at`."""
    return await look_at(services, trace.tenant, trace.bytes, what, function, *arguments)


async def look_at(
    services: Services, tenant: str, size: int, what: str, function: Callable[..., Result], *arguments: Any
) -> Result:
    """Have a helper look at what a tenant has stored.

    Parameters
    ----------
    services : Services
    tenant : str
    size : int
        Bytes to look at.
    what : str
        What the helper does, to begin a sentence.
    function, *arguments
        Both pickle.

    Raises
    ------
    ProblemError
    """
    helpers = services.parts.helpers
    try:
        return await helpers.run(tenant, "look", size, function, *arguments)
    except BrokenExecutor:
        raise ProblemError("out-of-memory", f"{what} ended the process that ran it.") from None
    except TooSlowError as error:
        detail = f"{what} took longer than {error.limit_s:g} s, and was ended."
        raise ProblemError("took-too-long", detail) from None
    except TooManyWaitingError as error:
        raise _too_many(error) from None


async def read_upload(
    services: Services, tenant: str, size: int, name: str, function: Callable[..., Result], *arguments: Any
) -> Result:
    """Have a helper read a file that was uploaded.

    Parameters
    ----------
    services : Services
    tenant : str
    size : int
        Bytes of the file.
    name : str
        How to call the file in errors.
    function, *arguments
        Both pickle.

    Raises
    ------
    ProblemError
    """
    try:
        return await services.parts.helpers.run(tenant, "upload", size, function, *arguments)
    except InputError as error:
        raise ProblemError("invalid-trace", error.violations[0].detail, error.violations) from None
    except BrokenExecutor:
        detail = "Reading the file ended the process that read it; it needs more memory than there is, most likely."
        raise _unread("reader_died", name, detail) from None
    except TooSlowError as error:
        detail = f"Reading the file took longer than {error.limit_s:g} s, and was ended."
        raise _unread("reading_too_long", name, detail) from None
    except TooManyWaitingError as error:
        raise _too_many(error) from None


@asynccontextmanager
async def in_turn(turns: Turns[Any], tenant: str) -> AsyncIterator[None]:
    """Wait for a tenant's turn; `ProblemError` if too many of its requests wait."""
    try:
        async with turns.turn(tenant):
            yield
    except TooManyWaitingError as error:
        raise _too_many(error) from None


def _unread(code: str, name: str, detail: str) -> ProblemError:
    remedy = "Upload a smaller file, or its profile: `moe-placement profile FILE --server URL`."
    violation = Violation(code=code, pointer=name, detail=detail, remedy=remedy)
    return ProblemError("invalid-trace", detail, [violation])


def _too_many(error: TooManyWaitingError) -> ProblemError:
    detail = f"{error.waiting} of your requests wait to be worked on."
    return ProblemError("quota-exceeded", detail, headers={"Retry-After": "5"})
