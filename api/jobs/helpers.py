"""Helper processes: tasks of requests, fair by tenant, short ones never behind long ones, none without an end.

A task begins among the short ones if its file is small, and has little time of the processor there. What takes longer
is broken off and begun again among the long ones; and for a while its tenant's tasks are all thought to be long. So
whoever sends small files that are slow to read makes others wait for a moment, once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any, Literal, TypeVar

from api.jobs.processes import busy_s, kill
from api.turns import Turns

__all__ = ["Helpers", "TooSlowError", "Use"]

SHORT_BYTES = 4 << 20  # files up to here are thought to be read within SHORT_S
SHORT_S = 2.0  # of the processor: on a busy machine everything takes longer
SHORT_WALL_S = 20.0
LOOK_S = 0.1
SUSPECT_S = 60.0  # how long a tenant whose short task was long is thought to send more of them
SHORT_HELPERS = 2
MOST_WAITING = 64  # of one tenant
Use = Literal["upload", "look"]
Result = TypeVar("Result")


class TooSlowError(Exception):
    """A task has used up its time; `limit_s` is how much it was."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"longer than {limit_s:g} s")
        self.limit_s = limit_s


class Helpers:
    """Processes for tasks of requests, so that neither memory nor the interpreter lock of the server suffers.

    Parameters
    ----------
    make_short, make_long : callable
        Return a new executor of one process, which starts when it is needed.
    long : int
        Processes for long tasks, so many for each use.
    max_s : float
        Longest time of a task.
    warm_up : callable
        Loads what tasks need, before there is any; pickles.
    """

    def __init__(
        self,
        make_short: Callable[[], Executor],
        make_long: Callable[[], Executor],
        *,
        long: int,
        max_s: float,
        warm_up: Callable[[], object],
    ) -> None:
        self._max_s = max_s
        self._suspects: dict[str, float] = {}
        short = [_Helper(make_short, warm_up) for _ in range(SHORT_HELPERS)]
        # One tenant never has all of the short ones.
        self._short = Turns(short, SHORT_HELPERS - 1, MOST_WAITING)
        uses: dict[Use, list[_Helper]] = {"upload": [], "look": []}
        for helpers in uses.values():
            helpers += [_Helper(make_long, warm_up) for _ in range(long)]
        self._long = {use: Turns(helpers, max(1, long - 1), MOST_WAITING) for use, helpers in uses.items()}
        self._all = [*short, *uses["upload"], *uses["look"]]

    def start(self) -> None:
        """Start the processes ahead of any request: whoever comes first must not wait for one to start."""
        for helper in self._all:
            helper.start()

    async def run(self, tenant: str, use: Use, size: int, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in a helper.

        Parameters
        ----------
        tenant : str
            Whose task it is.
        use : {"upload", "look"}
            Long uploads and long looks at traces do not wait for one another.
        size : int
            Bytes of the file that is read.
        function, *arguments
            Both pickle.

        Raises
        ------
        TooSlowError
        TooManyWaitingError
            If too many of the tenant's tasks wait.
        BrokenExecutor
            If it ended the helper, twice.
        """
        now = time.monotonic()
        if size <= SHORT_BYTES and now - self._suspects.get(tenant, -SUSPECT_S) >= SUSPECT_S:
            try:
                async with self._short.turn(tenant) as helper:
                    return await helper.call(min(SHORT_WALL_S, self._max_s), SHORT_S, function, *arguments)
            except TooSlowError:
                if self._max_s <= SHORT_WALL_S:
                    raise
                self._suspect(tenant)
        async with self._long[use].turn(tenant) as helper:
            return await helper.call(self._max_s, math.inf, function, *arguments)

    def close(self) -> None:
        """End the helpers: nobody waits for one any more."""
        for helper in self._all:
            helper.close()

    def _suspect(self, tenant: str) -> None:
        now = time.monotonic()
        self._suspects = {name: since for name, since in self._suspects.items() if now - since < SUSPECT_S}
        self._suspects[tenant] = now


class _Helper:
    """One process, for one task at a time; replaced when it has died, or its task does not end."""

    def __init__(self, make: Callable[[], Executor], warm_up: Callable[[], object]) -> None:
        self._make, self._warm_up = make, warm_up
        self._executor: Executor | None = None
        self._warm: Future[object] | None = None
        self._closed = False

    def start(self) -> Executor:
        """Have the process start, unless it has."""
        if self._executor is None:
            if self._closed:
                raise BrokenExecutor("The service stops.")
            self._executor = self._make()
            self._warm = self._executor.submit(self._warm_up)
        return self._executor

    async def call(
        self, limit_s: float, busy_limit_s: float, function: Callable[..., Result], *arguments: Any
    ) -> Result:
        """Call a function; its time, and that of the processor, begins when the process is ready."""
        try:
            return await self._call(limit_s, busy_limit_s, function, *arguments)
        except BrokenExecutor:
            self._end()  # it may have died while it was idle: the task gets a second chance
        try:
            return await self._call(limit_s, busy_limit_s, function, *arguments)
        except BrokenExecutor:
            self._end()
            raise

    async def _call(
        self, limit_s: float, busy_limit_s: float, function: Callable[..., Result], *arguments: Any
    ) -> Result:
        executor = self.start()
        assert self._warm is not None
        await asyncio.wrap_future(self._warm)
        begun, used = time.monotonic(), busy_s(executor)
        task = executor.submit(function, *arguments)
        waiting = asyncio.wrap_future(task)
        every = LOOK_S if busy_limit_s < math.inf else limit_s
        try:
            while not (await asyncio.wait([waiting], timeout=min(every, limit_s)))[0]:
                taken = time.monotonic() - begun
                now = busy_s(executor)
                if taken >= limit_s or (taken if used is None or now is None else now - used) >= busy_limit_s:
                    raise TooSlowError(limit_s)
            return waiting.result()
        finally:
            waiting.cancel()
            if not task.done():  # out of time, or nobody waits any more
                self._end()
                if not self._closed:
                    self.start()

    def close(self) -> None:
        """End the process, for good."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        if self._executor is not None:
            kill(self._executor)
            self._executor = self._warm = None
