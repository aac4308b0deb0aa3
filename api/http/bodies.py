"""Large JSON bodies: checked in a process of their own, read in a thread of their own, one of each tenant at a time.

What grows with a body keeps the interpreter to itself: for seconds, where a body breaks a rule a million times. So the
event loop reads small ones only. A large one is first checked by a helper process, which may be ended, and whose memory
does not matter. Where lists of objects may be long, which keep the interpreter for long even if they are valid, the
helper does the request's work as well (`in_helper`); else what has passed is read again here, in a thread.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.http.json_text import read_json, told
from api.http.problems import ProblemError
from api.turns import TooManyWaitingError, Turns
from traces import Violation

__all__ = [
    "LIGHT_BYTES",
    "Bodies",
    "Turn",
    "in_helper",
    "is_for_helper",
    "keep_little_memory",
    "unread",
    "unread_content",
]

LIGHT_BYTES = 32 << 10
CHECK_S = 20.0  # of the processor: on a busy machine everything takes longer
MOST_S = 45.0
LOOK_S = 0.2
WAIT_S = 60.0
TENANTS = 16  # that may have a large body here at once, each of them one
MOST_WAITING = 100  # of one tenant
GIVE_BACK_S = 1.0  # after a large body, when nothing holds it any more; not for each of many
MAX_VALUES = 2_000_000  # as commas, which is what values are apart by


@dataclass(frozen=True)
class Refusal:
    """Why a body is no request; pickles."""

    slug: str
    detail: str
    errors: tuple[Violation, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: ProblemError) -> Refusal:
        """Return an exception, which does not pickle, as what does."""
        return cls(error.slug, str(error.detail), error.errors, error.headers or {})

    def error(self) -> ProblemError:
        """Return it as an exception."""
        return ProblemError(self.slug, self.detail, self.errors, self.headers)


@dataclass(frozen=True)
class Done:
    """What a function has returned; pickles."""

    value: Any


Route = Callable[..., Awaitable[Any]]
Function = TypeVar("Function", bound=Route)
M_MMAP_THRESHOLD = -3  # of malloc.h
MMAP_BYTES = 256 << 10
TOO_MUCH = Refusal("too-large", "The body takes more time or memory to check than there is. Send less at once.")


class Turn:
    """A request's turn with a large body. The route may end it early: before it waits for something else, say."""

    def __init__(self) -> None:
        self._held = AsyncExitStack()

    async def begin(self, turns: Turns[int], tenant: str) -> None:
        """Wait for the tenant's turn; `ProblemError` if that takes too long."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self._held.enter_async_context(turns.turn(tenant))
        except (TimeoutError, TooManyWaitingError):
            detail = "Large requests of yours take turns, and too many wait for theirs."
            raise ProblemError("too-many-requests", detail, headers={"Retry-After": "10"}) from None

    async def end(self) -> None:
        """Let the next one begin; again, it does nothing."""
        await self._held.aclose()


class Bodies:
    """Reads large bodies.

    Parameters
    ----------
    make : callable
        Returns an executor of one process.
    end : callable
        Ends an executor and what runs in it.
    busy_s : callable
        Returns the processor time that an executor has used; None where it can't be told.
    """

    def __init__(
        self,
        make: Callable[[], Executor],
        end: Callable[[Executor], None],
        busy_s: Callable[[Executor], float | None],
    ) -> None:
        self._make, self._end, self._busy_s = make, end, busy_s
        self._executor: Executor | None = None
        self._turns = Turns(range(TENANTS), 1, MOST_WAITING)
        self._checking = asyncio.Lock()
        self._giving_back: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def turn(self, request: Request) -> AsyncIterator[Turn]:
        """Wait until the body of a request may be received: at once if it is small, else one of a tenant at a time."""
        turn, large = Turn(), is_large(request)
        if large:
            await turn.begin(self._turns, request.state.principal.tenant)
        try:
            yield turn
        finally:
            await turn.end()
            if large and self._giving_back is None:
                self._giving_back = asyncio.create_task(self._give_back())

    async def _give_back(self) -> None:
        await asyncio.sleep(GIVE_BACK_S)
        self._giving_back = None
        await run_in_threadpool(give_back_memory)

    async def read(self, content: bytes, model: type[BaseModel]) -> BaseModel:
        """Return a large body as an instance of its model; `ProblemError` if it is none."""
        await self.work(content, model, _nothing)
        return await run_in_threadpool(_read, content, model)

    async def work(self, content: bytes, model: type[BaseModel], function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function with a large body, as an instance of its model, in the helper process.

        Parameters
        ----------
        content : bytes
        model : type
        function, *arguments
            All pickle, and what it returns or raises as well; `ProblemError` does even so.

        Raises
        ------
        ProblemError
            If the body is no instance, or takes too much.
        """
        if content.count(b",") > MAX_VALUES:
            raise ProblemError("too-large", f"The body has more than {MAX_VALUES} values.")
        async with self._checking:  # so that nobody's body is ended because another's takes too long
            found = await self._call(content, model, function, arguments)
        if isinstance(found, Refusal):
            raise found.error()
        return found.value

    async def _call(self, *task: Any) -> Done | Refusal:
        executor, running = await run_in_threadpool(self._submit, task)
        waiting, begun, used = asyncio.wrap_future(running), time.monotonic(), self._busy_s(executor)
        try:
            while not (await asyncio.wait([waiting], timeout=LOOK_S))[0]:
                taken, now = time.monotonic() - begun, self._busy_s(executor)
                if taken >= MOST_S or (taken if used is None or now is None else now - used) >= CHECK_S:
                    waiting.cancel()
                    break
            else:
                return waiting.result()
        except BrokenExecutor:
            pass
        self._drop(executor)
        return TOO_MUCH

    def _submit(self, task: tuple[Any, ...]) -> tuple[Executor, Future[Done | Refusal]]:
        """Hand a task over; to a new helper, if the one before has died since."""
        executor = self._executor = self._executor or self._make()
        try:
            return executor, executor.submit(work, *task)
        except BrokenExecutor:
            self._drop(executor)
            executor = self._executor = self._make()
            return executor, executor.submit(work, *task)

    def _drop(self, executor: Executor) -> None:
        if self._executor is executor:
            self._executor = None
        self._end(executor)

    def close(self) -> None:
        """End the helper process."""
        if self._executor is not None:
            self._drop(self._executor)


def is_large(request: Request) -> bool:
    """Whether a body is above `LIGHT_BYTES`, or does not say how large it is."""
    length = request.headers.get("content-length")
    if length is None:
        return "transfer-encoding" in request.headers
    return not length.isdecimal() or int(length[:20]) > LIGHT_BYTES


def in_helper(route: Function) -> Function:
    """Mark a route whose work with a large body the helper does: it gets `unread` in place of one."""
    route.__dict__["in_helper"] = True
    return route


def is_for_helper(route: Callable[..., Any]) -> bool:
    """Whether a route is marked with `in_helper`."""
    return getattr(route, "in_helper", False)


def unread(request: Request, content: bytes, model: type[BaseModel]) -> BaseModel:
    """Return what stands for a large body: an instance without any field, and the content beside the request."""
    request.state.unread = content
    made = model.model_construct()
    made.__dict__.clear()  # so that a field that is asked for even so is a fault, and not its default
    return made


def unread_content(request: Request) -> bytes | None:
    """Return the content of a large body that was not read here; None of a body that was."""
    return getattr(request.state, "unread", None)


def work(
    content: bytes, model: type[BaseModel], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> Done | Refusal:
    """Call a function with a body; return what it returns, or why it is refused. Runs in the helper process."""
    try:
        return Done(function(_read(content, model), *arguments))
    except ProblemError as error:
        return Refusal.of(error)
    except MemoryError:
        return TOO_MUCH
    finally:
        give_back_memory()


def _nothing(body: BaseModel) -> None:
    """Leave it at the check."""


def _read(content: bytes, model: type[BaseModel]) -> BaseModel:
    value = read_json(content)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        items = error.errors(include_url=False, include_context=False, include_input=False)
    if not isinstance(value, dict):
        detail = "The body is not a JSON object."
        violations: tuple[Violation, ...] = (
            Violation(code="not_an_object", pointer="", detail=detail, remedy="Send an object."),
        )
    else:
        violations = told([{**item, "loc": ("body", *item["loc"])} for item in items])
    raise ProblemError("invalid-request", violations[0].detail, violations)


def keep_little_memory() -> None:
    """Have the C library take large pieces from the system one by one, so that they go back when they are freed.

    By itself it would take them so only until the first of their size is freed.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)


def give_back_memory() -> None:
    """Return what a large body has taken to the system; the C library would keep most of it."""
    gc.collect()
    trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
    if trim is not None:
        trim(0)
