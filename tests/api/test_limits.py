"""Quotas, retention, and jobs that outgrow their memory."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.jobs.processes import kill, process_pool
from api.resources.traces import imports
from api.service.cleanup import DAY_S, Cleanup
from api.settings.settings import Settings
from api.store.audit import AuditLog
from api.store.blobs import Blobs
from api.store.leases import Leases
from tests.builders.service import keep, local_client, services_of, store_in, upload
from traces import InputError

TRACE = "sha256:" + "a" * 64
WIDE = np.arange(200, dtype=np.int16).reshape(20, 5, 2) * 14  # experts of 20 tokens and 5 layers, up to 2786


def test_limits_per_tenant_hold_by_default(tmp_path: Path) -> None:
    """Nobody has to set them, and no tenant may fill the queue that all share."""
    settings = Settings(data_dir=tmp_path)
    for limit in (settings.tenant_trace_bytes, settings.tenant_open_uploads, settings.tenant_active_plans):
        assert limit > 0
    assert settings.tenant_active_plans < settings.max_queued_plans


def test_tenants_have_quotas(tmp_path: Path, make_trace_bytes: Callable[..., bytes]) -> None:
    """More bytes of traces, topologies and active plans than a tenant may have are refused, and are not kept."""
    first, second = make_trace_bytes(tokens=200), make_trace_bytes(tokens=200, seed=1)
    settings = Settings(
        data_dir=tmp_path,
        tenant_trace_bytes=len(first) + 10,
        tenant_active_plans=1,
        tenant_topologies=1,
        max_workers=1,
        threads_per_plan=1,
    )
    with local_client(settings) as client:
        assert client.post("/v1/topologies", json={"topology": "1x4"}).status_code == 201
        refused = client.post("/v1/topologies", json={"topology": "1x4"})
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/quota-exceeded")
        trace = client.post("/v1/traces", content=first).json()["id"]
        refused = client.post("/v1/traces", content=second)
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/quota-exceeded")
        assert len(list((tmp_path / "blobs" / "sha256").glob("*/*"))) == 1
        assert client.post("/v1/traces", content=first).status_code == 200
        body = {"trace": trace, "topology": "1x4", "limits": {"time_s": 40}}
        plan = client.post("/v1/plans", json=body).json()["id"]
        again = client.post("/v1/plans", json=body)
        assert (again.status_code, again.headers["retry-after"]) == (429, "10")
        client.post(f"/v1/plans/{plan}/cancel")


def test_retention(tmp_path: Path) -> None:
    """Old plans go, then traces without plans, with their files; what is active, new or in use stays."""
    database, store = store_in(tmp_path)
    blobs = Blobs(tmp_path / "blobs")
    names = []
    for content in (b"used", b"unused"):
        names.append(keep(blobs, content))
        store.of("t").traces.add(names[-1], None, 4, {})
    used, unused = names
    done, waiting = (store.of("t").plans.add({"trace": used}, max_queued=9).row.id for _ in range(2))
    leases = Leases(database, 30.0)
    claim = leases.claim()
    assert claim is not None
    leases.lease(claim).finish("succeeded", values={})
    expired = store.of("t").uploads.add(None, {}, None, time.time() - 1).id
    blobs.part(expired).write_bytes(b"x")
    begun = blobs.receive()
    settings = Settings(data_dir=tmp_path, keep_days=2.0)
    cleanup = Cleanup(store, AuditLog(database), blobs, threading.Lock(), settings)
    cleanup.clean(time.time())
    assert store.of("t").plans.get(done) is not None
    assert blobs.exists(unused)
    assert not blobs.part(expired).exists()
    assert begun.path.exists()
    cleanup.clean(time.time() + 3 * DAY_S)
    assert store.of("t").plans.get(done) is None
    assert not begun.path.exists()
    assert store.of("t").plans.get(waiting) is not None
    assert blobs.exists(used)
    assert not blobs.exists(unused)
    assert store.of("t").traces.get(unused) is None


def test_open_uploads_count(tmp_path: Path) -> None:
    """What has arrived of uploads that are not finished counts as the tenant's; and it may have so many open."""
    settings = Settings(data_dir=tmp_path, tenant_trace_bytes=100, tenant_open_uploads=2, max_workers=1)
    with local_client(settings) as client:
        places = [client.post("/v1/uploads", json={}).headers["location"] for _ in range(2)]
        more = client.post("/v1/uploads", json={})
        fields = {"Upload-Offset": "0", "Content-Type": "application/octet-stream"}
        assert client.patch(places[0], content=b"x" * 60, headers=fields).status_code == 204
        beyond = client.patch(places[1], content=b"x" * 60, headers=fields)
        for answer in (more, beyond):
            assert (answer.status_code, answer.json()["type"]) == (429, "/problems/quota-exceeded")
        client.delete(places[0])
        assert client.patch(places[1], content=b"x" * 60, headers=fields).status_code == 204


def test_imports_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that sends a little now and then is given up in time, and leaves nothing."""

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            time.sleep(0.05)
            return super().read(1)

    monkeypatch.setattr(imports, "_open_path", lambda *_: Slow(b"x" * 100))
    blobs, settings = Blobs(tmp_path), Settings(data_dir=tmp_path, max_read_s=0.2)
    with pytest.raises(InputError, match="did not arrive within"):
        imports.fetch("/slow", settings, blobs)
    assert not list((tmp_path / "incoming").iterdir())


def test_reading_and_looking_have_an_end(tmp_path: Path, trace_bytes: bytes) -> None:
    """What takes longer than `max_read_s` is ended and told: of an upload, of an evaluation, of any look at a trace."""
    with local_client(Settings(data_dir=tmp_path, max_workers=1, threads_per_plan=1)) as client:
        trace = client.post("/v1/traces", content=trace_bytes).json()["id"]
        body = {"trace": trace, "topology": "1x4", "limits": {"work": 100}}
        plan = client.post("/v1/plans", json=body, headers={"Prefer": "wait=60"}).json()["id"]
        services_of(client).parts.helpers._max_s = 1e-6
        refused = client.post("/v1/traces", content=trace_bytes[:-1])
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "reading_too_long")
        for look in (f"traces/{trace}/affinity", f"traces/{trace}/findings", f"plans/{plan}/score"):
            assert client.get(f"/v1/{look}").json()["type"] == "/problems/took-too-long"
        asked = {"plan": plan, "trace": trace}
        assert client.post("/v1/evaluations", json=asked).json()["type"] == "/problems/took-too-long"


def test_looks_do_not_queue_behind_uploads(tmp_path: Path, trace_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads an upload has helpers of its own: evaluations, scores and looks at traces are sent to others."""
    with local_client(Settings(data_dir=tmp_path, max_workers=1, threads_per_plan=1)) as client:
        helpers, uses = services_of(client).parts.helpers, list[str]()
        run = helpers.run

        async def noted(tenant: str, use: Any, *rest: Any) -> Any:
            uses.append(use)
            return await run(tenant, use, *rest)

        monkeypatch.setattr(helpers, "run", noted)
        trace = client.post("/v1/traces", content=trace_bytes).json()["id"]
        assert uses == ["upload"]
        body = {"trace": trace, "topology": "1x4", "solver": "contiguous"}
        plan = client.post("/v1/plans", json=body, headers={"Prefer": "wait=60"}).json()["id"]
        uses.clear()
        for look in (f"traces/{trace}/affinity", f"traces/{trace}/findings", f"plans/{plan}/score"):
            assert client.get(f"/v1/{look}").status_code == 200, look
        assert client.post("/v1/evaluations", json={"plan": plan, "trace": trace}).status_code == 200
        assert set(uses) == {"look"}
        assert len(uses) >= 4


def allocate(count: int) -> int:
    """Take memory, touch it, and give it back."""
    return int(np.ones(count, np.uint8).sum())


def test_job_that_outgrows_its_memory_fails_alone() -> None:
    """A process with a limit refuses what is beyond it, and goes on with what is within."""
    pool = process_pool(1, 0, "ERROR", 600_000_000)
    try:
        assert pool.submit(allocate, 10_000_000).result(60) == 10_000_000
        with pytest.raises((MemoryError, BrokenProcessPool)):
            pool.submit(allocate, 2_000_000_000).result(60)
    finally:
        kill(pool)


@pytest.mark.slow
def test_plan_that_outgrows_the_memory_of_its_worker(tmp_path: Path, make_trace_bytes: Callable[..., bytes]) -> None:
    """It fails and says so; what another tenant asks for next is done by the same service."""
    settings = Settings(data_dir=tmp_path, max_workers=1, threads_per_plan=1, job_memory_bytes=512 << 20, max_crashes=1)
    with local_client(settings) as client:
        large = upload(client, make_trace_bytes(tokens=20, layers=5, experts=3000, topk_ids=WIDE))
        body = {"trace": large, "topology": "1x4", "limits": {"work": 100}}
        failed = client.post("/v1/plans", json=body, headers={"Prefer": "wait=60"}).json()
        assert failed["status"] == "failed", failed
        assert failed["error"]["type"] in ("/problems/out-of-memory", "/problems/worker-died")
        small = upload(client, make_trace_bytes(tokens=100))
        body = {"trace": small, "topology": "1x4", "limits": {"work": 100}}
        assert client.post("/v1/plans", json=body, headers={"Prefer": "wait=60"}).json()["status"] == "succeeded"


def test_memory_limit_leaves_room_for_a_plan(
    tmp_path: Path, start_server: Callable[..., Any], trace_bytes: bytes
) -> None:
    """With a limit of 1 GB per worker a small plan is made as ever."""
    server = start_server(tmp_path / "data", job_memory_bytes=1 << 30)
    trace = server.http.post("/v1/traces", content=trace_bytes).raise_for_status().json()["id"]
    body = {"trace": trace, "topology": "1x4", "limits": {"work": 100_000}}
    place = server.http.post("/v1/plans", json=body).raise_for_status().headers["location"]
    found = server.until(place, lambda plan: plan["status"] not in ("queued", "running"))
    assert found["status"] == "succeeded", found
