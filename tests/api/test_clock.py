"""A clock that jumps deletes nothing; time zones change nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.resources.answers import time_of
from api.service.cleanup import DAY_S, Cleanup
from api.settings.settings import Settings
from api.store.audit import AuditLog
from api.store.blobs import Blobs
from api.store.clock import HOLD_S, Clock
from api.store.identity import settle_identity
from tests.builders.service import keep, store_in

HOUR_S = 3600.0


class Times:
    """A clock, and one that never jumps, both set by hand."""

    def __init__(self) -> None:
        self.now, self.passed = 1e9, 50.0

    def go(self, seconds: float, *, jump: float = 0.0) -> None:
        """Let time pass; the clock may jump as well."""
        self.passed += seconds
        self.now += seconds + jump


@pytest.fixture
def times() -> Times:
    """Return clocks."""
    return Times()


@pytest.fixture
def clock(tmp_path: Path, times: Times) -> Iterator[Clock]:
    """Return the clock of a database that was looked at for a day, and trusts it."""
    database, _ = store_in(tmp_path)
    settle_identity(database, Blobs(tmp_path / "blobs"))
    clock = Clock(database, lambda: times.now, lambda: times.passed)
    assert clock.hold_s() == HOLD_S  # nobody knows the clock yet
    for _ in range(24):
        times.go(HOUR_S)
        clock.hold_s()
    assert clock.hold_s() == 0
    yield clock
    database.close()


def restarted(clock: Clock, times: Times) -> Clock:
    """Return the clock as another process sees it, whose other clock begins anew."""
    times.passed = 7.0
    return Clock(clock._database, lambda: times.now, lambda: times.passed)


@pytest.mark.parametrize("jump", [60 * DAY_S, -60 * DAY_S, HOUR_S])
def test_jump_of_a_running_service_is_noticed(clock: Clock, times: Times, jump: float) -> None:
    """In both directions; a day of service later the clock is trusted again."""
    times.go(600, jump=jump)
    assert clock.hold_s() == HOLD_S
    times.go(HOLD_S / 2)
    assert clock.hold_s() == HOLD_S / 2
    times.go(HOLD_S / 2)
    assert clock.hold_s() == 0


def test_jump_between_starts_is_noticed_and_remembered(clock: Clock, times: Times) -> None:
    """A clock that is ahead for one start, and right again at the next, is never trusted; nor after a quick restart."""
    times.go(10, jump=60 * DAY_S)
    assert restarted(clock, times).hold_s() == HOLD_S
    times.go(600)
    assert restarted(clock, times).hold_s() == HOLD_S
    times.go(10, jump=-60 * DAY_S)
    assert restarted(clock, times).hold_s() == HOLD_S


def test_restarts_and_corrections_are_no_jumps(clock: Clock, times: Times) -> None:
    """A night between two servers, and a clock that is set by a minute, change nothing."""
    times.go(12 * HOUR_S)
    later = restarted(clock, times)
    assert later.hold_s() == 0
    times.go(600, jump=60)
    assert later.hold_s() == 0


def test_nothing_is_deleted_on_a_jump(tmp_path: Path, times: Times) -> None:
    """Plans, traces, uploads, received files, audit entries and keys stay until the clock is trusted; then they go."""
    database, store = store_in(tmp_path)
    blobs, audit, mine = Blobs(tmp_path / "blobs"), AuditLog(database), store.of("t")
    settle_identity(database, blobs)
    name = keep(blobs, b"content")
    mine.traces.add(name, None, 7, {})
    done = mine.plans.add({"trace": name}, max_queued=9, key="k", body_hash="h").row.id
    mine.plans.cancel(done)
    upload = mine.uploads.add(None, {}, None, time.time() + HOUR_S).id
    blobs.part(upload).write_bytes(b"half")
    received = blobs.receive()
    audit.add(action="POST /v1/plans", status=202)
    settings = Settings(data_dir=tmp_path, keep_days=30.0, audit_days=30.0)
    clock = Clock(database, lambda: times.now, lambda: times.passed)
    cleanup = Cleanup(store, audit, blobs, threading.Lock(), settings, clock)
    ahead = time.time() + 60 * DAY_S
    cleanup.tend(ahead)
    assert mine.plans.get(done) is not None
    assert mine.plans.of_key("k", "h", 90 * DAY_S) is not None
    assert store.upload_ids() == {upload}
    assert blobs.exists(name)
    assert blobs.part(upload).exists()
    assert received.path.exists()
    assert audit.list(9)
    times.go(HOLD_S)
    cleanup.tend(ahead)
    assert mine.plans.get(done) is None
    assert not store.upload_ids()
    assert not blobs.exists(name)
    assert not received.path.exists()
    assert not audit.list(9)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns", "UTC"])
def test_time_zones_change_nothing(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """Times are told in UTC, wherever the server is."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert time_of(0.0).isoformat() == "1970-01-01T00:00:00+00:00"
    finally:
        monkeypatch.undo()
        time.tzset()


LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian: faketime).")
def test_start_with_a_clock_that_is_ahead_deletes_nothing(
    tmp_path: Path, start_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real server whose clock is 60 days ahead for one start keeps the plans and traces that seem too old."""
    folder = tmp_path / "data"
    folder.mkdir()
    database, store = store_in(folder)
    blobs, mine = Blobs(folder / "blobs"), store.of("local")
    settle_identity(database, blobs)
    name = keep(blobs, b"content")
    mine.traces.add(name, None, 7, {})
    done = mine.plans.add({"trace": name}, max_queued=9).row.id
    mine.plans.cancel(done)
    upload = mine.uploads.add(None, {}, None, time.time() + HOUR_S).id
    monkeypatch.setenv("LD_PRELOAD", str(LIBRARY))
    monkeypatch.setenv("FAKETIME", "+60d")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    server = start_server(folder, keep_days=30)
    deadline = time.monotonic() + 60
    while "clock.not_trusted" not in (log := server.log.read_text()):
        assert time.monotonic() < deadline, log
        time.sleep(0.05)
    server.terminate()
    assert mine.plans.get(done) is not None
    assert blobs.exists(name)
    assert store.upload_ids() == {upload}
    database.close()
