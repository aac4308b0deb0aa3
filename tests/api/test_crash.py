"""kill -9 at random moments, of the server and its workers, under load: what was acknowledged is there, once.

Two rounds per database by default; `CRASH_ROUNDS=100 pytest tests/api/test_crash.py -rA` runs more and shows figures.
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest
from sqlalchemy import func, select

from api.store.database import Database
from api.store.models import plan_events, plans

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "2"))
RESTART_S = 30.0  # far above what an idle machine takes: a test on a busy one is to find losses, not to measure
ENDED = ("succeeded", "failed", "cancelled")


@dataclass
class Ledger:
    """What clients were told, and so may rely on."""

    traces: dict[str, int] = field(default_factory=dict)
    uploads: dict[str, int] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    moments: Counter[str] = field(default_factory=Counter)


class Load:
    """Clients that upload, ask and watch until the server dies or they are told to stop.

    Parameters
    ----------
    url : str
    ledger : Ledger
    content : callable
        Returns the bytes of a new trace.
    """

    def __init__(self, url: str, ledger: Ledger, content: Callable[[], bytes]) -> None:
        self.url, self.ledger, self.content = url, ledger, content
        self.stopping = threading.Event()
        self.faults: list[str] = []
        works = (self.upload, self.upload_in_parts, self.ask, self.watch)
        self.threads = [threading.Thread(target=self.repeat, args=(work,), daemon=True) for work in works]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)

    def repeat(self, work: Callable[[httpx2.Client], None]) -> None:
        """Do one kind of work again and again."""
        with httpx2.Client(base_url=self.url, timeout=30) as http:
            while not self.stopping.is_set():
                try:
                    work(http)
                except httpx2.HTTPError:
                    self.stopping.wait(0.05)  # the server has gone: its answer, if there was one, did not arrive
                except AssertionError as error:
                    self.faults.append(str(error))

    def upload(self, http: httpx2.Client) -> None:
        """Upload a trace at once."""
        content = self.content()
        answer = http.post("/v1/traces", content=content)
        assert answer.status_code in (200, 201, 503), answer.text
        if answer.status_code != 503:
            self.ledger.traces[answer.json()["id"]] = len(content)
        self.stopping.wait(0.1)

    def upload_in_parts(self, http: httpx2.Client) -> None:
        """Upload a trace in parts; what has arrived of an unfinished one is noted after every part."""
        content = self.content()
        begun = http.post("/v1/uploads", json={})
        if begun.status_code != 201:
            return
        upload_id = begun.json()["id"]
        for offset in range(0, len(content), 20_000):
            fields = {"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"}
            part = content[offset : offset + 20_000]
            sent = http.patch(f"/v1/uploads/{upload_id}", content=part, headers=fields)
            assert sent.status_code in (204, 503), sent.text
            self.ledger.uploads[upload_id] = offset + len(part)
        del self.ledger.uploads[upload_id]  # from here on it is the upload or the trace
        answer = http.post(f"/v1/uploads/{upload_id}/finish")
        assert answer.status_code in (200, 201, 503), answer.text
        if answer.status_code != 503:
            self.ledger.traces[answer.json()["id"]] = len(content)

    def ask(self, http: httpx2.Client) -> None:
        """Ask for a plan under a new key. The body is noted before it is sent: it may be queued without an answer."""
        if not self.ledger.traces:
            self.stopping.wait(0.05)
            return
        trace = random.choice(list(self.ledger.traces))
        key = secrets.token_hex(8)
        limits = {"time_s": random.choice((0.1, 0.4, 1.0))}
        body = {"trace": trace, "topology": "1x4", "solver": "annealing", "limits": limits}
        self.ledger.bodies[key] = body
        answer = http.post("/v1/plans", json=body, headers={"Idempotency-Key": key})
        assert answer.status_code in (202, 429, 503), answer.text
        if answer.status_code == 202:
            self.ledger.keys[key] = answer.json()["id"]
        self.stopping.wait(0.4)

    def watch(self, http: httpx2.Client) -> None:
        """Look at plans: scores never get worse, and what has ended stays as it was."""
        for plan_id in [plan for plan in self.ledger.keys.values() if plan not in self.ledger.ended][:20]:
            answer = http.get(f"/v1/plans/{plan_id}")
            assert answer.status_code in (200, 503), f"{plan_id} is lost: {answer.text}"
            if answer.status_code == 200:
                note(self.ledger, answer.json())
            if self.stopping.is_set():
                return
        self.stopping.wait(0.05)


def note(ledger: Ledger, plan: dict[str, Any]) -> None:
    """Hold what was seen of a plan against what was seen before."""
    plan_id, score = plan["id"], plan["score"]
    if plan_id in ledger.scores:
        assert score is not None, f"{plan_id} has lost its plan"
        assert score <= ledger.scores[plan_id] + 1e-9, f"{plan_id} got worse: {ledger.scores[plan_id]} to {score}"
    if score is not None:
        ledger.scores[plan_id] = score
        assert plan["plan"] is not None, f"{plan_id} has a score and no plan"
    state = tuple(plan[name] for name in ("status", "score", "finished_at", "attempt"))
    if plan_id in ledger.ended:
        assert state == ledger.ended[plan_id], f"{plan_id} ended twice: {ledger.ended[plan_id]}, {state}"
    if plan["status"] in ENDED:
        ledger.ended[plan_id] = state


def check(server: Any, ledger: Ledger) -> None:
    """Hold the service against the ledger, files included."""
    for trace_id, size in list(ledger.traces.items()):
        answer = server.http.get(f"/v1/traces/{trace_id}")
        assert answer.status_code == 200, f"{trace_id} is lost"
        assert answer.json()["bytes"] == size
    for path in (server.data_dir / "blobs" / "sha256").glob("*/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, f"{path} is corrupt"
    for upload_id, size in list(ledger.uploads.items()):
        assert server.http.get(f"/v1/uploads/{upload_id}").json()["offset"] >= size, f"parts of {upload_id} are lost"
    for plan_id in ledger.keys.values():
        answer = server.http.get(f"/v1/plans/{plan_id}")
        assert answer.status_code == 200, f"{plan_id} is lost"
        note(ledger, answer.json())


def begin(server_type: Any, folder: Path, url: str) -> tuple[Any, float]:
    """Start a server and return it with the seconds until it was ready."""
    before = time.monotonic()
    # Every round leaves an upload open.
    limits = {"max_queued_plans": 5, "tenant_open_uploads": 10_000}
    server = server_type.start(folder, database_url=url, max_workers=2, **limits)
    while server.http.get("/readyz").status_code != 200:
        assert time.monotonic() - before < RESTART_S
        time.sleep(0.02)
    return server, time.monotonic() - before


def strike(server: Any, rng: random.Random, ledger: Ledger) -> None:
    """Kill at a random moment: a worker, and then, or at once, the server.

    Some rounds end before they have begun, but none before anything at all was promised.
    """
    before = bool(ledger.keys) and rng.random() < 0.2
    told = len(ledger.traces) + len(ledger.keys) + (0 if before else 2)
    deadline = time.monotonic() + 60
    while (len(ledger.traces) + len(ledger.keys) < told or not ledger.keys) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 2.0))
    if rng.random() < 0.5 and (workers := server.workers()):
        rng.choice(workers).kill()
        ledger.moments["worker"] += 1
        time.sleep(rng.uniform(0.0, 1.0))
    waiting = [ledger.bodies[key] for key, plan in ledger.keys.items() if plan not in ledger.ended]
    ledger.moments["server, plans under way" if waiting else "server"] += 1
    server.process.kill()
    server.process.wait(30)
    server.http.close()


@pytest.mark.slow
@pytest.mark.timeout(180 + 60 * ROUNDS)
def test_nothing_acknowledged_is_lost(
    tmp_path: Path, database_url: str, server_type: Any, make_trace_bytes: Callable[..., bytes]
) -> None:
    """However often server and workers are killed: traces and plans are there, whole, ended once, and never worse."""
    seed = int(os.environ.get("CRASH_SEED", str(random.randrange(1 << 30))))
    rng = random.Random(seed)
    ledger, restarts = Ledger(), []

    def content() -> bytes:
        return make_trace_bytes(tokens=400, seed=rng.randrange(1 << 30))

    server = None
    try:
        for _ in range(ROUNDS):
            server, seconds = begin(server_type, tmp_path / "data", database_url)
            restarts.append(seconds)
            check(server, ledger)
            with Load(str(server.http.base_url), ledger, content) as load:
                strike(server, rng, ledger)
            assert not load.faults, load.faults[:3]
        server, seconds = begin(server_type, tmp_path / "data", database_url)
        restarts.append(seconds)
        check(server, ledger)
        # A request whose answer was lost is sent again with its key: it makes the plan, or finds the one it had made.
        for key, body in ledger.bodies.items():
            while True:
                answer = server.http.post("/v1/plans", json=body, headers={"Idempotency-Key": key})
                if answer.status_code != 429:
                    break
                time.sleep(0.2)
            assert answer.status_code in (200, 202), answer.text
            assert ledger.keys.setdefault(key, answer.json()["id"]) == answer.json()["id"], "one key, two plans"
        for plan_id in ledger.keys.values():
            server.until(f"/v1/plans/{plan_id}", lambda plan: plan["status"] in ENDED)
        check(server, ledger)
        database = Database(database_url)
        with database.read() as connection:
            count = connection.execute(select(func.count()).select_from(plans)).scalar_one()
            events = connection.execute(select(plan_events.c.plan_id, plan_events.c.data)).all()
        database.close()
        assert ledger.traces
        assert ledger.keys
        assert count == len(ledger.keys), "there are plans that nobody asked for, or two of one key"
        ends = Counter(event.plan_id for event in events if event.data["status"] in ENDED)
        assert set(ends.values()) <= {1}, "a plan was told to have ended twice"
        statuses = Counter(str(state[0]) for state in ledger.ended.values())
        assert statuses["succeeded"] == len(ledger.keys) or ROUNDS > 3, statuses
        attempts = Counter(state[3] for state in ledger.ended.values())
        figures = (
            f"\nseed {seed}, {ROUNDS} rounds, killed {dict(ledger.moments)}: {len(ledger.traces)} traces, "
            f"{len(ledger.keys)} plans {dict(statuses)}, attempts {dict(attempts)}, "
            f"restart median {statistics.median(restarts):.2f} s, greatest {max(restarts):.2f} s\n"
        )
        sys.stdout.write(figures)
    except AssertionError as error:
        error.add_note(f"CRASH_SEED={seed}")
        raise
    finally:
        if server is not None and server.process.poll() is None:
            server.kill()
