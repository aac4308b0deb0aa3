"""The service as a process: restarts, crashes, and many clients at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

import api.http.drain
from api.http.drain import DrainBody
from api.http.problems import problem_response
from api.http.request_log import RequestLog
from api.service.lifecycle import Service
from api.service.server import _bind, serve
from api.settings.settings import Settings
from api.store.database import Database
from api.store.store import Store
from api.telemetry.metrics import Metrics
from tests.builders.service import upload
from traces import InputError

SEARCH = {"topology": "1x4", "solver": "annealing"}


def ask(server: Any, trace_id: str, seconds: float) -> str:
    """Ask for a plan and return where it is."""
    body = {**SEARCH, "trace": trace_id, "limits": {"time_s": seconds}}
    response = server.http.post("/v1/plans", json=body)
    assert response.status_code == 202, response.text
    place: str = response.headers["location"]
    return place


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, server_type: Any) -> Iterator[Any]:
    """Start a service that the tests of this module share."""
    running = server_type.start(tmp_path_factory.mktemp("shared") / "data", max_json_bytes=1 << 26)
    yield running
    running.kill()


def test_survives_kill(tmp_path: Path, start_server: Callable[..., Any], trace_bytes: bytes) -> None:
    """After kill -9 in the middle of a search, the next server finishes the plan, and is not worse than before."""
    first = start_server(tmp_path / "data")
    trace_id = upload(first.http, trace_bytes)
    place, waiting = ask(first, trace_id, 2.0), ask(first, trace_id, 0.3)
    before = first.until(place, lambda plan: plan["score"] is not None)
    orphans = first.workers()
    first.kill()
    second = start_server(tmp_path / "data")
    assert second.http.get(f"/v1/traces/{trace_id}").status_code == 200
    after = second.until(place, lambda plan: plan["status"] != "running" and plan["status"] != "queued")
    assert (after["status"], after["attempt"]) == ("succeeded", 2)
    assert after["score"] <= before["score"]
    assert second.until(waiting, lambda plan: plan["finished_at"])["status"] == "succeeded"
    assert not psutil.wait_procs(orphans, timeout=5)[1], "workers outlive their server"


def test_stops_gracefully(tmp_path: Path, start_server: Callable[..., Any], trace_bytes: bytes) -> None:
    """SIGTERM ends the server soon: waiting clients are answered, the running plan is queued with what it has found."""
    first = start_server(tmp_path / "data")
    place = ask(first, upload(first.http, trace_bytes), 50.0)
    first.until(place, lambda plan: plan["score"] is not None)
    children = psutil.Process(first.process.pid).children(recursive=True)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(first.http.get, place, headers={"Prefer": "wait=50"})
        time.sleep(0.5)
        begin = time.monotonic()
        first.process.terminate()
        assert waiting.result(20).json()["status"] in ("running", "queued")  # as it is put back
    assert first.process.wait(20) == 0
    assert time.monotonic() - begin < 10
    assert not psutil.wait_procs(children, timeout=5)[1], "workers outlive their server"
    assert "leaked" not in first.log.read_text(), "semaphores of its pools were left to others"
    row, text, _ = (
        Store(Database(f"sqlite:///{tmp_path / 'data' / 'service.db'}"))
        .of("local")
        .plans.documents(place.rpartition("/")[2])
    )
    assert row is not None
    assert row.status == "queued"
    assert text is not None
    second = start_server(tmp_path / "data")
    second.until(place, lambda plan: plan["status"] == "running")
    second.http.post(place + "/cancel")
    assert second.until(place, lambda plan: plan["finished_at"])["plan"]["score"] <= row.score


def test_dead_worker(server: Any, trace_bytes: bytes) -> None:
    """A worker that is killed is replaced, and its plan is begun again from what was found."""
    place = ask(server, upload(server.http, trace_bytes), 2.0)
    server.until(place, lambda plan: plan["score"] is not None)
    for worker in server.workers():
        os.kill(worker.pid, signal.SIGKILL)
    done = server.until(place, lambda plan: plan["finished_at"])
    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    assert "moe_placement_worker_deaths_total 1.0" in server.http.get("/metrics").text


def test_workers_come_last(server: Any, trace_bytes: bytes) -> None:
    """Workers run at lower priority than the server that answers."""
    place = ask(server, upload(server.http, trace_bytes), 0.3)
    server.until(place, lambda plan: plan["finished_at"])
    nice, deadline = psutil.Process(server.process.pid).nice(), time.monotonic() + 30
    while not all(worker.nice() > nice for worker in server.workers()):  # one that just began still imports
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_large_upload_takes_no_memory(server: Any) -> None:
    """An upload goes to the disk as it comes: the server does not grow with it."""

    def peak_mb() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024

    def parts() -> Iterator[bytes]:
        for _ in range(200):
            yield bytes(1 << 20)

    before = peak_mb()
    assert server.http.post("/v1/traces", content=parts()).status_code == 422
    assert peak_mb() - before < 64


def test_broken_off_upload(server: Any, tmp_path: Path) -> None:
    """A client that goes away in the middle of an upload leaves no file."""
    host, port = server.http.base_url.host, server.http.base_url.port
    incoming = server.data_dir / "blobs" / "incoming"
    with socket.create_connection((host, port)) as connection:
        head = f"POST /v1/traces HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 9000000\r\n\r\n"
        connection.sendall(head.encode() + bytes(3_000_000))
        deadline = time.monotonic() + 10
        while not list(incoming.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    deadline = time.monotonic() + 10
    while list(incoming.iterdir()):
        assert time.monotonic() < deadline, "the unfinished file stays"
        time.sleep(0.02)
    assert server.http.get("/healthz").status_code == 200


def test_early_answer_arrives(server: Any) -> None:
    """A client that sends on after its body was refused can still read why, and the connection ends."""
    host, port = server.http.base_url.host, server.http.base_url.port
    head = (
        f"POST /v1/traces HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Encoding: br\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(head.encode())
        for _ in range(50):
            connection.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
    assert answer.startswith(b"HTTP/1.1 415")
    assert b"/problems/unsupported-media-type" in answer


def test_silent_client_does_not_hold_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client still owes after an answer is waited for a moment only."""
    monkeypatch.setattr(api.http.drain, "DRAIN_S", 0.05)
    sent: list[Any] = []

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await problem_response("too-large", "No.")(scope, receive, send)

    async def never() -> Any:
        await asyncio.Event().wait()

    async def keep(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "headers": [(b"content-length", b"9")]}
    asyncio.run(asyncio.wait_for(DrainBody(refuse)(scope, never, keep), 10))
    assert [message.get("more_body", False) for message in sent] == [False, True, False]


def test_request_that_outlasts_the_service(tmp_path: Path) -> None:
    """A request that is given up when the server stops is answered with 503."""
    sent: list[Any] = []

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def keep(message: Any) -> None:
        sent.append(message)

    async def stop() -> None:
        metrics = Metrics(Store(Database(f"sqlite:///{tmp_path / 'service.db'}")), tmp_path)
        scope = {"type": "http", "method": "POST", "path": "/v1/evaluations", "headers": []}
        task = asyncio.create_task(RequestLog(endless, metrics)(scope, keep, keep))  # type: ignore[arg-type]  # unused
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    asyncio.run(stop())
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["type"] == "/problems/unavailable"


def test_same_upload_at_once(server: Any, make_trace_bytes: Callable[..., bytes]) -> None:
    """Many uploads of the same bytes at the same time make one trace."""
    content = make_trace_bytes(tokens=400, seed=99)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: server.http.post("/v1/traces", content=content), range(8)))
    assert sorted(response.status_code for response in found) == [200] * 7 + [201]
    assert len({response.json()["id"] for response in found}) == 1


def test_same_key_at_once(server: Any, trace_bytes: bytes) -> None:
    """Many requests with one idempotency key at the same time make one plan."""
    body = {"trace": upload(server.http, trace_bytes), "topology": "1x4", "solver": "contiguous"}
    key = {"Idempotency-Key": "at-once"}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: server.http.post("/v1/plans", json=body, headers=key), range(8)))
    assert len({response.json()["id"] for response in found}) == 1


def test_one_server_per_data_folder(server: Any) -> None:
    """A second server on the same data folder is refused."""
    with pytest.raises(InputError, match="Another server"):
        Service(Settings(data_dir=server.data_dir)).open()


def test_address_in_use(server: Any, tmp_path: Path) -> None:
    """An address that is taken is told in a sentence, before any plan is taken up."""
    with pytest.raises(InputError, match="Can't listen on port"):
        serve("127.0.0.1", server.http.base_url.port, tmp_path)
    assert not list(tmp_path.iterdir())


def test_command_tells_where_it_listens(tmp_path: Path) -> None:
    """`serve --json` prints the address once it answers there; SIGTERM ends it."""
    command = [sys.executable, "-c", "from api.cli import main; main()", "serve", "--json"]
    command += ["--port", "0", "--data-dir", str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            assert (told["pid"], told["data_dir"]) == (process.pid, str(tmp_path))
            answer = httpx2.get(f"http://{told['host']}:{told['port']}/readyz")
            assert answer.text == "ok\n"
        finally:
            process.terminate()
        assert process.wait(30) == 0


def test_other_machines_are_asked_who_they_are(tmp_path: Path) -> None:
    """Without authentication the service listens on the loopback only, and says how to change that."""
    with pytest.raises(InputError, match="AUTH=required"):
        serve("0.0.0.0", 8000, tmp_path)


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """Connections send small packets at once: a body that follows its head by itself would else wait for the client."""
    with _bind("127.0.0.1", 0) as bound, socket.create_connection(bound.getsockname()):
        taken, _ = bound.accept()
        with taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
