"""Watching plans: what many watchers cost, and that streams end with the key that opened them, and with the plan."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from fastapi.testclient import TestClient

import api.jobs.watching as watching
from api.settings.settings import Settings
from api.store.events import news_after
from api.store.plans import Plans
from tests.api.test_rest_events import events_of
from tests.builders.service import key_of, local_client, services_of


@pytest.fixture
def service(tmp_path: Path) -> Iterator[TestClient]:
    """Run a service that asks for keys, and runs no plan."""
    with local_client(Settings(data_dir=tmp_path, auth="required", shutdown_s=0)) as client:
        services_of(client).parts.dispatcher.stop(0)
        yield client


@pytest.fixture
def plan(service: TestClient, trace_bytes: bytes) -> tuple[str, dict[str, str]]:
    """Queue a plan that is never run; return its path and a key that may cancel it."""
    key = key_of(service, "us", "admin")
    trace = service.post("/v1/traces", content=trace_bytes, headers=key).json()["id"]
    made = service.post("/v1/plans", json={"trace": trace, "topology": "1x4"}, headers=key)
    return f"/v1/plans/{made.json()['id']}", key


def test_watchers_share_one_look(
    service: TestClient, plan: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty watchers of a plan cost as many looks at the database as one, and are all told everything."""
    path, key = plan
    looks: list[float] = []

    def counted(*arguments: Any) -> Any:
        looks.append(time.monotonic())
        return news_after(*arguments)

    monkeypatch.setattr(watching, "news_after", counted)
    with ThreadPoolExecutor(20) as pool:
        begin = time.monotonic()
        watched = [pool.submit(service.get, f"{path}/events", headers=key) for _ in range(20)]
        time.sleep(2)
        service.post(f"{path}/cancel", headers=key)
        told = [events_of(answer.result()) for answer in watched]
        took = time.monotonic() - begin
    assert all(events == told[0] for events in told)
    assert told[0][-1]["event"] == "done"
    assert len(looks) <= took / watching.POLL_S + 3


def test_waiters_share_one_look(
    service: TestClient, plan: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty that wait for a plan, rather than watch it, look it up when there is news, and not again and again."""
    path, key = plan
    looks: list[float] = []
    get = Plans.get

    def counted(*arguments: Any) -> Any:
        looks.append(time.monotonic())
        return get(*arguments)

    monkeypatch.setattr(Plans, "get", counted)
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(service.get, path, headers=key | {"Prefer": "wait=60"}) for _ in range(20)]
        time.sleep(3)
        service.post(f"{path}/cancel", headers=key)
        assert {answer.result(20).json()["status"] for answer in waiting} == {"cancelled"}
    assert len(looks) <= 3 * 20


@pytest.mark.timeout(60)
def test_wait_ends_with_its_key(service: TestClient, plan: tuple[str, dict[str, str]]) -> None:
    """Who waits for a plan with a key that is revoked meanwhile is told that, soon, and nothing of the plan."""
    path, key = plan
    made = service.post("/v1/keys", json={"scopes": ["read"]}, headers=key).json()
    mine = {"Authorization": f"Bearer {made['key']}", "Prefer": "wait=60"}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(service.get, path, headers=mine)
        time.sleep(1)
        begin = time.monotonic()
        service.delete(f"/v1/keys/{made['id']}", headers=key)
        answer = waiting.result(40)
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthorized")
    assert time.monotonic() - begin < 10


@pytest.mark.timeout(60)
def test_stream_ends_with_its_key(service: TestClient, plan: tuple[str, dict[str, str]]) -> None:
    """A revoked key's stream ends within seconds; those of others go on."""
    path, key = plan
    made = service.post("/v1/keys", json={"scopes": ["read"]}, headers=key).json()
    with ThreadPoolExecutor(2) as pool:
        doomed = pool.submit(service.get, f"{path}/events", headers={"Authorization": f"Bearer {made['key']}"})
        other = pool.submit(service.get, f"{path}/events", headers=key)
        time.sleep(1)
        begin = time.monotonic()
        service.delete(f"/v1/keys/{made['id']}", headers=key)
        assert "done" not in [event["event"] for event in events_of(doomed.result(20))]
        assert time.monotonic() - begin < 10
        assert not other.done()
        service.post(f"{path}/cancel", headers=key)
        assert events_of(other.result(20))[-1]["event"] == "done"


def test_stream_of_a_deleted_plan_says_so(
    service: TestClient, plan: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that ends and is deleted between two looks ends the stream with `deleted`: nobody saw it `done`."""
    path, key = plan
    looked, gone = Event(), Event()

    def held(*arguments: Any) -> Any:
        if looked.is_set():
            gone.wait(20)
        try:
            return news_after(*arguments)
        finally:
            looked.set()

    monkeypatch.setattr(watching, "news_after", held)
    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(service.get, f"{path}/events", headers=key)
        assert looked.wait(20)
        service.post(f"{path}/cancel", headers=key)
        assert service.delete(path, headers=key).status_code == 204
        gone.set()
        assert [event["event"] for event in events_of(watched.result(20))] == ["status", "deleted"]


def test_feed_is_given_up_with_its_last_watcher(
    service: TestClient, plan: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks for news that nobody wants."""
    database = services_of(service).store.database

    async def check() -> None:
        found = watching.Watching(database)
        async with found.of("plan_none") as feed:
            await feed.news(5)
            assert (feed.over, feed.deleted) == (True, True)
        looks: list[Any] = []

        def counted(*arguments: Any) -> Any:
            looks.append(arguments)
            return news_after(*arguments)

        monkeypatch.setattr(watching, "news_after", counted)
        async with found.of(plan[0].rpartition("/")[2]) as feed:
            await feed.news(5)
            assert [event.data["status"] for event in feed.after(0)] == ["queued"]
        seen = len(looks)
        await asyncio.sleep(3 * watching.POLL_S)
        assert len(looks) <= seen + 1

    asyncio.run(check())
