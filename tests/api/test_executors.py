"""Where plans run: what is asked for is read, checked against what workers can reach, and begun once per attempt."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import api.jobs.executors
from api.jobs.executors import executor_factory
from api.service.lifecycle import Service
from api.settings.addresses import Cluster, parse_executor
from api.settings.settings import Settings
from api.store.database import Database
from api.store.leases import Leases, StaleAttemptError
from api.store.store import Store
from traces import InputError

REMOTE = "dask://scheduler.example:8786"
POSTGRES = "postgresql://plans@db.example/plans"


def test_addresses_are_read() -> None:
    """Both transports, names and both kinds of addresses."""
    assert parse_executor("processes") is None
    assert parse_executor(REMOTE) == Cluster(transport="tcp", host="scheduler.example", port=8786)
    found = parse_executor("dask+tls://[::1]:1")
    assert found is not None
    assert found.address == "tls://[::1]:1"


@pytest.mark.parametrize(
    "text",
    ["", "threads", "dask://", "dask://host", "dask://host:x", "dask://host:0", "dask://u@host:1", "dask://h:1/p"],
)
def test_other_texts_are_refused(text: str) -> None:
    """The forms that there are are told."""
    with pytest.raises(InputError, match="dask://HOST:PORT") as error:
        executor_factory(text, "--executor")
    assert error.value.violations[0].pointer == "--executor"
    with pytest.raises(ValidationError, match="dask://HOST:PORT"):
        Settings(executor=text)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "database"),
        ({"database_url": "postgresql://plans@localhost/plans"}, "database"),
        ({"database_url": "postgresql:///plans?host=/run/postgresql"}, "database"),
        ({"database_url": POSTGRES, "job_memory_bytes": 1 << 30}, "--memory-limit"),
        ({"database_url": POSTGRES, "blobs_url": "memory://traces"}, "BLOBS_URL"),
    ],
)
def test_workers_must_reach_what_they_need(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    """A database or blobs that other machines can't see, and limits that would not hold there, are refused."""
    with pytest.raises(ValidationError, match=reason):
        Settings(data_dir=tmp_path, executor=REMOTE, **settings)


def test_workers_that_reach_everything_are_accepted(tmp_path: Path) -> None:
    """SQLite will do for a cluster on this machine, PostgreSQL for any."""
    Settings(data_dir=tmp_path, executor="dask://127.0.0.1:8786")
    Settings(data_dir=tmp_path, executor=REMOTE, database_url=POSTGRES, blobs_url="s3://bucket/traces")


def test_missing_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Dask, neither the command nor the service begins."""
    monkeypatch.setattr(api.jobs.executors, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"moe-placement\[dask\]"):
        executor_factory(REMOTE)
    with pytest.raises(InputError, match=r"moe-placement\[dask\]"):
        Service(Settings(data_dir=tmp_path, executor="dask://127.0.0.1:1")).open()


def test_local_executor_runs_processes() -> None:
    """`processes` is a pool of this machine."""
    executor = executor_factory("processes")()
    with executor:
        assert executor.submit(int, "7").result(60) == 7


@pytest.fixture
def leases(database_url: str) -> Leases:
    """Return the queue of an empty database, with one plan."""
    database = Database(database_url)
    database.upgrade()
    store = Store(database).of("local")
    store.traces.add("sha256:0", "t", 1, {})
    store.plans.add({"trace": "sha256:0"}, max_queued=9)
    return Leases(database, 30.0)


def test_attempts_begin_once(leases: Leases) -> None:
    """The task of a dead worker that runs again elsewhere finds its attempt begun, and ends; the next attempt runs."""
    claim = leases.claim()
    assert claim is not None
    leases.lease(claim).begin()
    with pytest.raises(StaleAttemptError):
        leases.lease(claim).begin()
    leases.lease(claim).renew()  # the first one is not disturbed
    assert leases.crashed(claim, 3, {}) == "queued"
    following = leases.claim()
    assert following is not None
    leases.lease(following).begin()


def test_plans_that_wait_for_a_worker_are_held(leases: Leases) -> None:
    """A busy cluster may take longer than a lease; from the beginning on, the worker has to give signs of life."""
    short = Leases(leases.database, 0.2)
    claim = short.claim()
    assert claim is not None
    time.sleep(0.3)
    assert leases.hold(claim)
    assert leases.give_back_expired() == []
    short.lease(claim).begin()
    assert not leases.hold(claim)
    time.sleep(0.3)
    assert leases.give_back_expired() == [claim.plan_id]
    assert not leases.hold(claim)
