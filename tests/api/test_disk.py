"""A disk that is nearly full, full, or read-only: clear errors, and nothing that was acknowledged is lost."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from api.settings.settings import Settings
from api.store.database import Database
from api.store.disk import disk_problem
from tests.builders.service import local_client, npz


def mount(*arguments: str) -> None:
    """Mount, or skip the test where that is not allowed."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"Mounting is not allowed here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of 24 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder))
    yield folder
    while folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_room_is_left_for_plans(tmp_path: Path, trace_bytes: bytes) -> None:
    """With less room than is kept free, traces are refused and the service is not ready; it reads on, and plans.

    With less than a quarter of it, plans, topologies and series are refused as well.
    """
    settings = Settings(data_dir=tmp_path, max_workers=1, threads_per_plan=1, max_wait_s=100)
    with local_client(settings) as client:
        trace = client.post("/v1/traces", content=trace_bytes).json()["id"]
        assert client.get("/readyz").status_code == 200
    free = shutil.disk_usage(tmp_path).free
    full = settings.model_copy(update={"min_free_bytes": 2 * free})
    with local_client(full) as client:
        refused = client.post("/v1/traces", content=trace_bytes + b"x")
        assert (refused.status_code, refused.json()["type"]) == (507, "/problems/storage-full")
        upload = client.post("/v1/uploads", json={}).json()["id"]
        part = {"Upload-Offset": "0", "Content-Type": "application/octet-stream"}
        assert client.patch(f"/v1/uploads/{upload}", content=b"x", headers=part).status_code == 507
        ready = client.get("/readyz")
        assert (ready.status_code, "bytes left" in ready.json()["detail"]) == (503, True)
        assert client.get(f"/v1/traces/{trace}").status_code == 200
        body = {"trace": trace, "topology": "1x4", "solver": "contiguous"}
        assert client.post("/v1/plans", json=body, headers={"Prefer": "wait=100"}).json()["status"] == "succeeded"
    with local_client(settings.model_copy(update={"min_free_bytes": 100 * free})) as client:
        for path, asked in (("plans", body), ("topologies", {"topology": "2x4"}), ("series", {})):
            refused = client.post(f"/v1/{path}", json=asked)
            assert (refused.status_code, refused.json()["type"]) == (507, "/problems/storage-full"), path
        assert client.get(f"/v1/traces/{trace}").status_code == 200


def test_read_only_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that was mounted read-only, and a folder that has gone, are told as what they are."""
    settings = Settings(data_dir=tmp_path, min_free_bytes=0)
    assert disk_problem(settings.data_dir, settings.min_free_bytes) is None
    found = list(os.statvfs(tmp_path))
    found[8] |= os.ST_RDONLY
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(found))
    assert disk_problem(settings.data_dir, settings.min_free_bytes) == "The disk of the data folder is read-only."
    monkeypatch.undo()
    assert "can't be used" in str(disk_problem(tmp_path / "none", 0))


def large_trace(seed: int) -> bytes:
    """Return a trace of 1.2 MB, soon made: 60,000 tokens, six layers of 32 experts."""
    rng, shape = np.random.default_rng(seed), (60_000, 6)
    first = rng.integers(0, 32, shape)
    ids = np.stack([first, (first + rng.integers(1, 32, shape)) % 32], axis=2)
    return npz(topk_ids=ids.astype(np.uint8), num_experts=np.array(32), seq_id=np.arange(60_000) // 50)


@pytest.mark.slow
def test_full_disk(small_disk: Path, start_server: Callable[..., Any]) -> None:
    """Traces until nothing fits: 507, what was acknowledged stays whole, reading goes on, and room is all it takes."""
    server = start_server(small_disk / "data", min_free_bytes=0)
    kept = []
    for number in range(40):
        answer = server.http.post("/v1/traces", content=large_trace(number))
        if answer.status_code != 201:
            break
        kept.append(answer.json()["id"])
    assert kept
    assert (answer.status_code, answer.json()["type"]) == (507, "/problems/storage-full")
    # The rest of the room, to the last byte: now the database can't grow either.
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while filler.write(bytes(size)):
                    pass
            except OSError:
                continue
    statuses = set()
    bodies = [{"trace": kept[0], "topology": "1x4", "solver": "contiguous"}] * 12
    places = []
    for body in bodies:
        answer = server.http.post("/v1/plans", json=body)
        statuses.add(answer.status_code)
        if answer.status_code == 202:
            places.append(answer.headers["location"])
    assert statuses <= {202, 503}, statuses
    assert 503 in statuses, "the disk was not full"
    for trace in kept:
        assert server.http.get(f"/v1/traces/{trace}").status_code == 200
    (small_disk / "filler").unlink()
    gone = kept.pop()
    assert server.http.delete(f"/v1/traces/{gone}").status_code == 204
    for place in places:
        assert server.until(place, lambda plan: plan["finished_at"])["status"] == "succeeded"
    done = server.http.post("/v1/plans", json=bodies[0], headers={"Prefer": "wait=30"})
    assert done.json()["status"] == "succeeded", done.text
    server.kill()
    again = start_server(small_disk / "data", min_free_bytes=0)
    for trace in kept:
        assert again.http.get(f"/v1/traces/{trace}").status_code == 200
    for path in (small_disk / "data" / "blobs" / "sha256").glob("*/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_connections_of_a_read_only_time_are_dropped(small_disk: Path) -> None:
    """A connection that was opened while the disk was read-only does not stay: the next change opens another."""
    url = f"sqlite:///{small_disk / 'service.db'}"
    first = Database(url)
    first.upgrade()
    with first.read():
        pass  # keeps a connection, so that the files of the write-ahead log stay
    database = Database(url)
    mount("--bind", str(small_disk), str(small_disk))
    mount("-o", "remount,bind,ro", str(small_disk))
    try:
        with pytest.raises(OperationalError, match="readonly"), database.write():
            pass
    finally:
        mount("-o", "remount,bind,rw", str(small_disk))
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE made_afterwards (id INTEGER)")
    database.close()
    first.close()


@pytest.mark.slow
def test_disk_that_becomes_read_only(
    small_disk: Path, start_server: Callable[..., Any], make_trace_bytes: Callable[..., bytes]
) -> None:
    """Under a read-only mount what would be kept is refused, with the reason, and reads answered; then all goes on."""
    server = start_server(small_disk / "data", min_free_bytes=0)
    trace = server.http.post("/v1/traces", content=make_trace_bytes(tokens=300)).json()["id"]
    mount("--bind", str(small_disk), str(small_disk))
    mount("-o", "remount,bind,ro", str(small_disk))
    try:
        refused = server.http.post("/v1/traces", content=make_trace_bytes(tokens=300, seed=1))
        assert refused.status_code == 507, refused.text
        assert server.http.get("/readyz").status_code == 503
        answer = server.http.post("/v1/plans", json={"trace": trace, "topology": "1x4", "solver": "contiguous"})
        assert (answer.status_code, answer.json()["detail"]) == (507, "The disk of the data folder is read-only.")
        assert server.http.get(f"/v1/traces/{trace}").status_code == 200
    finally:
        subprocess.run(["mount", "-o", "remount,bind,rw", str(small_disk)], check=True)
    assert server.http.get("/readyz").status_code == 200
    again = server.http.post("/v1/traces", content=make_trace_bytes(tokens=300, seed=1))
    assert again.status_code == 201, (again.text, server.log.read_text()[-3000:])
