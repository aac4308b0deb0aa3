"""Helper processes: turns by tenant, short tasks never behind long ones, every task with an end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import BrokenExecutor, Executor
from typing import Any

import pytest

from api.jobs import helpers as module
from api.jobs.helpers import Helpers, TooSlowError
from api.jobs.processes import process_pool
from api.jobs.wants import Patience
from api.turns import TooManyWaitingError, Turns


def nothing() -> None:
    """Need nothing ahead."""


def busy(seconds: float) -> int:
    """Take some time; return the process."""
    time.sleep(seconds)
    return os.getpid()


def work(seconds: float) -> int:
    """Use the processor for some time; return the process."""
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        pass
    return os.getpid()


def die() -> None:
    """End the process."""
    os._exit(1)


def fail() -> None:
    """Fail with the error that a time limit is told by, too."""
    raise TimeoutError("mine")


def make() -> Executor:
    """Return a process."""
    return process_pool(1, 0, None)


def run(check: Callable[[Helpers], Awaitable[Any]], max_s: float = 30.0) -> Any:
    """Run a check with helpers of short patience."""
    helpers = Helpers(make, make, long=1, max_s=max_s, warm_up=nothing)
    try:
        return asyncio.run(check(helpers))  # type: ignore[arg-type]  # a coroutine
    finally:
        helpers.close()


def test_turns_are_fair() -> None:
    """One tenant's fifty requests make another's wait for one of them, not for all; and it never has every place."""

    async def check() -> list[str]:
        turns, order = Turns(["a", "b"], 1, 64), list[str]()

        async def work(tenant: str) -> None:
            async with turns.turn(tenant):
                order.append(tenant)
                await asyncio.sleep(0.001)

        await asyncio.gather(*(work("greedy") for _ in range(50)), work("modest"))
        return order

    order = asyncio.run(check())
    assert sorted(order) == ["greedy"] * 50 + ["modest"]
    assert order.index("modest") <= 1


def test_turns_survive_those_who_give_up() -> None:
    """Whoever is cancelled while it waits, or as it is served, leaves its place to the next; too many are refused."""

    async def check() -> None:
        turns = Turns(["place"], 1, 2)

        async def work() -> str:
            async with turns.turn("t") as place:
                return place

        async with turns.turn("t"):
            waiting = [asyncio.create_task(work()) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(TooManyWaitingError, match="2 wait"):
                await work()
            waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await asyncio.wait_for(work(), 5) == "place"

    asyncio.run(check())


def test_short_tasks_do_not_wait_for_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files of one tenant hold up no small file, of nobody; looks at traces don't wait for uploads."""
    monkeypatch.setattr(module, "SHORT_S", 5.0)

    async def check(helpers: Helpers) -> None:
        large = module.SHORT_BYTES + 1
        await helpers.run("a", "look", large, busy, 0)  # the processes are there
        held = [asyncio.create_task(helpers.run("a", "upload", large, busy, 9.0)) for _ in range(3)]
        for tenant, use, size in (("b", "upload", 10), ("a", "upload", 10), ("b", "look", large)):
            begun = time.monotonic()
            await helpers.run(tenant, use, size, busy, 0)  # type: ignore[arg-type]  # a literal
            assert time.monotonic() - begun < 5.0
        assert not any(task.done() for task in held)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)

    run(check)


def test_small_file_that_is_slow_to_read_moves_to_the_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is begun again there, and what its tenant sends next goes there at once; others stay among the short ones."""
    monkeypatch.setattr(module, "SHORT_S", 0.3)

    async def check(helpers: Helpers) -> None:
        assert await helpers.run("b", "upload", 10, busy, 0.6)  # the machine was busy: that is nobody's fault
        slow = await helpers.run("a", "upload", 10, work, 0.6)
        assert await helpers.run("a", "upload", 10, busy, 0) == slow
        assert await helpers.run("b", "upload", 10, busy, 0) != slow

    run(check)


def test_task_without_an_end_is_ended() -> None:
    """A task that takes longer than the limit is told so, and the next one is done by another process."""

    async def check(helpers: Helpers) -> None:
        large = module.SHORT_BYTES + 1
        before = await helpers.run("a", "upload", large, busy, 0)
        begun = time.monotonic()
        with pytest.raises(TooSlowError):
            await helpers.run("a", "upload", large, busy, 60)
        assert time.monotonic() - begun < 10
        assert await helpers.run("a", "upload", large, busy, 0) != before
        with pytest.raises(TimeoutError, match="mine"):
            await helpers.run("a", "upload", large, fail)
        with pytest.raises(BrokenExecutor):
            await helpers.run("a", "upload", large, die)
        await helpers.run("a", "upload", large, busy, 0)

    run(check, 0.5)


def test_patience_counts_the_processor() -> None:
    """A short plan that waits on a busy machine is not taken for a long one; one that works on and on is."""
    pool = make()
    try:
        pool.submit(nothing).result(60)
        patience = Patience(pool, 1, 0.3)
        pool.submit(busy, 0.5).result(60)
        assert not patience.over()
        pool.submit(work, 0.6).result(60)
        assert patience.over()
    finally:
        pool.shutdown()
