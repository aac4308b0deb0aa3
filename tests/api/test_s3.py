"""Traces in an object store: the service end to end against a server that speaks S3."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import httpx2
import pytest

from api.store.remote_blobs import RemoteBlobs
from traces import InputError

NEEDED = ("s3fs", "moto", "flask", "flask_cors")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"Not installed: {', '.join(MISSING)} (group s3-tests)."),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve S3 on a free port with one bucket; return its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path_factory.mktemp("s3") / "log").open("wb")
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while True:
            try:
                httpx2.put(f"{url}/traces", timeout=10).raise_for_status()
                break
            except httpx2.HTTPError:
                assert time.monotonic() < deadline
                assert process.poll() is None, Path(log.name).read_text()
                time.sleep(0.2)
        yield url
        process.kill()


@pytest.fixture
def endpoint(store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name the server and made-up credentials in the environment, as operators do."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return store


def objects(store: str, prefix: str) -> list[str]:
    """Return the names of the objects below a prefix."""
    text = httpx2.get(f"{store}/traces?list-type=2&prefix={prefix}").raise_for_status().text
    return [part.partition("</Key>")[0] for part in text.split("<Key>")[1:]]


def test_blobs(endpoint: str, tmp_path: Path) -> None:
    """A blob is stored under its digest, fetched where it is not cached, and refused if it is damaged."""
    here, there = (RemoteBlobs(tmp_path / name, "s3://traces/unit") for name in ("here", "there"))
    incoming = here.receive()
    incoming.write(b"content")
    incoming.finish()
    name = incoming.blob_id
    here.keep(incoming)
    assert objects(endpoint, "unit") == ["unit/" + name.removeprefix("sha256:")]
    assert there.fetch(name).read_bytes() == b"content"
    there.path(name).write_bytes(b"damaged here")
    assert there.fetch(name).read_bytes() == b"content"
    fsspec.filesystem("s3").pipe_file(f"traces/{objects(endpoint, 'unit')[0]}", b"damaged there")
    there.path(name).unlink()
    with pytest.raises(InputError, match="damaged in the object store"):
        there.fetch(name)
    here.delete(name)
    assert not objects(endpoint, "unit")
    assert not there.exists(name)


def test_service(endpoint: str, tmp_path: Path, start_server: Callable[..., Any], trace_bytes: bytes) -> None:
    """Upload, restart with an empty cache, plan, evaluate, delete: the object store is where traces are."""
    url = "s3://traces/service"
    first = start_server(tmp_path / "data", blobs_url=url)
    trace = first.http.post("/v1/traces", content=trace_bytes).raise_for_status().json()["id"]
    assert objects(endpoint, "service") == ["service/" + trace.removeprefix("sha256:"), "service/identity"]
    first.terminate()
    shutil.rmtree(tmp_path / "data" / "blobs")
    second = start_server(tmp_path / "data", blobs_url=url)
    body = {"trace": trace, "topology": "1x4", "limits": {"work": 10_000}}
    place = second.http.post("/v1/plans", json=body).raise_for_status().headers["location"]
    plan = second.until(place, lambda found: found["status"] not in ("queued", "running"))
    assert plan["status"] == "succeeded", plan
    asked = {"plan": plan["id"], "trace": trace}
    assert second.http.post("/v1/evaluations", json=asked).status_code == 200
    assert second.http.post("/v1/traces", content=trace_bytes).status_code == 200
    assert second.http.delete(f"/v1/traces/{trace}").status_code == 204
    assert objects(endpoint, "service") == ["service/identity"]


def test_store_that_is_away(
    endpoint: str, tmp_path: Path, start_server: Callable[..., Any], trace_bytes: bytes
) -> None:
    """An object store that refuses is a clear error, and nothing is acknowledged."""
    server = start_server(tmp_path / "data", blobs_url="s3://no-such-bucket/x")
    answer = server.http.post("/v1/traces", content=trace_bytes)
    assert answer.status_code == 507, answer.text
    assert server.http.get("/v1/traces").json()["items"] == []
