"""Large JSON bodies: told what is wrong as small ones are, in bounded answers, and nobody waits for them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import pytest
from fastapi.testclient import TestClient

import api.http.bodies
from api.http.bodies import LIGHT_BYTES
from api.settings.settings import Settings
from tests.builders.service import local_client, upload
from traces.support.errors import LISTED

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Run a service that takes large bodies."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("large"), max_workers=1, shutdown_s=0)
    with local_client(settings, raising=False) as client:
        yield client


@pytest.fixture(scope="module")
def trace(service: TestClient, trace_bytes: bytes) -> str:
    """Upload a trace."""
    return upload(service, trace_bytes)


def validate(service: TestClient, content: bytes) -> Any:
    """Send a body to be checked."""
    return service.post("/v1/plans/validate", content=content, headers=JSON)


def asked(trace: str, **constraints: Any) -> bytes:
    """Return the body of a request with constraints."""
    return json.dumps({"trace": trace, "topology": "1x4", "constraints": constraints}).encode()


def test_violations_have_an_end(service: TestClient, trace: str) -> None:
    """Groups that overlap in every layer and expert: the first hundred and the count, in a small answer, soon."""
    begin = time.monotonic()
    answer = validate(service, asked(trace, groups=[{"experts": list(range(8))}] * 4000))
    assert time.monotonic() - begin < 20
    assert answer.status_code == 422
    assert len(answer.content) < 100_000
    errors = answer.json()["errors"]
    assert [item["code"] for item in errors] == ["group_overlap"] * LISTED + ["more_violations"]
    assert "or more" in errors[-1]["detail"]
    broken = [{"expert": 99, "gpu": 9, "layer_id": 77}] * 4000
    answer = validate(service, asked(trace, pins=broken, forbidden=broken))
    assert len(answer.json()["errors"]) == LISTED + 1


@pytest.mark.parametrize("count", [50, 150, 30_000])
def test_unknown_fields_are_counted(service: TestClient, trace: str, count: int) -> None:
    """Small or large, a body is told which fields there are not: all, or the first hundred and how many there are."""
    answer = validate(service, json.dumps({f"field_{number}": 1 for number in range(count)}).encode())
    errors = answer.json()["errors"]
    assert errors[-1]["code"] == ("more_violations" if count > LISTED else "unknown_field")
    if count > LISTED:
        assert f"There are {count + 1} violations" in errors[-1]["detail"], "the trace is missing as well"
        assert len(errors) == LISTED + 1


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'{"a": 1,' + b" " * LIGHT_BYTES, "malformed-json"),
        (b"[" * 2 * LIGHT_BYTES, "malformed-json"),
        (b"\xff" * 2 * LIGHT_BYTES, "malformed-json"),
        (b'{"a": 1' + b" " * LIGHT_BYTES + b', "a": 2}', "invalid-request"),
        (b"[1" + b" " * LIGHT_BYTES + b"]", "invalid-request"),
        (b"1" + b"0" * 2 * LIGHT_BYTES, "malformed-json"),
        (b"[" + b"," * 3_000_000 + b"]", "too-large"),
    ],
    ids=["cut off", "deep", "no text", "key twice", "no object", "digits", "values"],
)
def test_what_is_no_request_is_refused(service: TestClient, content: bytes, code: str) -> None:
    """A large body that is no JSON, no object, or too much is refused as a small one is."""
    answer = validate(service, content)
    assert answer.json()["type"] == f"/problems/{code}", answer.text[:300]
    assert 400 <= answer.status_code < 500


def test_long_lists_are_taken(service: TestClient, trace: str) -> None:
    """What is within the rules is taken, however long it is."""
    forbidden = [{"expert": number % 32, "gpu": number % 3, "layer_id": 1 + number % 6} for number in range(5000)]
    answer = validate(service, asked(trace, forbidden=forbidden))
    assert answer.status_code == 200, answer.text[:500]
    assert answer.json()["request"]["constraints"]["forbidden"] == forbidden


def test_large_requests_are_not_read_here(service: TestClient, trace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large request is queued by the helper that reads it: it keeps the server's interpreter from nobody."""

    def read_here(*_: Any) -> None:
        raise AssertionError("read in the server")

    monkeypatch.setattr(api.http.bodies, "_read", read_here)
    forbidden = [{"expert": number % 32, "gpu": 0, "layer_id": 1} for number in range(16, 31)] * 100
    body = json.loads(asked(trace, forbidden=forbidden)) | {"solver": "contiguous", "limits": {"time_s": 0.1}}
    found = {}
    for kind, content in (("plans", body), ("fronts", {**body, "solver": "annealing"})):
        for key in ("a", "a", "b"):
            answer = service.post(f"/v1/{kind}", json=content, headers={"Idempotency-Key": kind + key})
            assert answer.status_code in (200, 202), answer.text[:500]  # 200: its plan is there
            found[kind, key] = answer.json()["id"]
        assert found[kind, "a"] != found[kind, "b"]
        reused = service.post(f"/v1/{kind}", json=content | {"name": "other"}, headers={"Idempotency-Key": kind + "a"})
        assert reused.json()["type"] == "/problems/idempotency-key-reused"
        for search in found.values():
            service.post(f"/v1/{kind}/{search}/cancel")
    answer = service.post("/v1/plans", json=body | {"trace": "sha256:" + "0" * 64})
    assert [item["code"] for item in answer.json()["errors"]] == ["unknown_trace"]


def test_large_studies_are_not_read_here(service: TestClient, trace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations, advice, residency and topologies are read once, by the helper, too."""

    def read_here(*_: Any) -> None:
        raise AssertionError("read in the server")

    monkeypatch.setattr(api.http.bodies, "_read", read_here)
    plan, machine = "plan_" + "0" * 32, {"machine": "h200:1x4", "model": "qwen3-30b-a3b"}
    for path, body, told in (
        ("evaluations", {"plan": plan, "trace": trace}, ["unknown_plan"]),
        ("advice", {"plan": plan, "trace": trace, **machine}, ["unknown_plan"]),
        ("residency", {"trace": "sha256:" + "0" * 64, "resident": 0.5}, ["unknown_trace"]),
    ):
        answer = service.post(f"/v1/{path}", content=json.dumps(body) + " " * LIGHT_BYTES, headers=JSON)
        assert [item["code"] for item in answer.json()["errors"]] == told, path
    kept = service.post("/v1/topologies", content='{"topology": "1x2"}' + " " * LIGHT_BYTES, headers=JSON)
    assert (kept.status_code, kept.json()["num_gpus"]) == (201, 2)
    assert service.get(kept.headers["location"]).json() == kept.json()


@pytest.mark.timeout(120)
def test_nobody_waits_for_a_large_body(service: TestClient, trace: str) -> None:
    """While bodies of a million broken rules, and valid ones, are read, others are answered at once."""
    validate(service, asked(trace, forbidden=[{"expert": 0, "gpu": 0}] * 2000))  # the helper has started
    broken = json.dumps({f"k{number}": 1 for number in range(150_000)}).encode()
    valid = asked(trace, forbidden=[{"expert": number % 31, "gpu": number % 3} for number in range(10_000)])
    over, waits = Event(), []

    def watch() -> None:
        while not over.is_set():
            begin = time.monotonic()
            assert service.get("/healthz").status_code == 200
            waits.append(time.monotonic() - begin)
            time.sleep(0.01)

    watcher = Thread(target=watch)
    watcher.start()
    senders = [Thread(target=validate, args=(service, content)) for content in (broken, *[valid] * 3)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    over.set()
    watcher.join()
    assert max(waits) < 1.0, f"the worst of {len(waits)}"
