"""The news of a plan as server-sent events, over the network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

PROBLEM = {"topology": "1x4", "limits": {"work": 2_000_000}}


def events_of(response: Any) -> list[dict[str, Any]]:
    """Return the events of a stream that has ended."""
    found: list[dict[str, Any]] = []
    for block in response.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append({**fields, "data": json.loads(fields["data"])})
    return found


@pytest.fixture(scope="module")
def plan_id(client: TestClient, trace_id: str) -> str:
    """Ask for a plan, and return its id without waiting for it."""
    found: str = client.post("/v1/plans", json={"trace": trace_id, **PROBLEM}).json()["id"]
    return found


def test_stream_runs_to_the_end(client: TestClient, plan_id: str) -> None:
    """The stream tells all changes in order, scores never rise, and it ends with the finished plan."""
    response = client.get(f"/v1/plans/{plan_id}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response)
    revisions = [int(event["id"]) for event in events]
    assert revisions == list(range(1, len(events) + 1))
    assert [event["event"] for event in events[:2]] == ["status", "status"]
    assert [event["event"] for event in events].index("done") == len(events) - 1
    scores = [event["data"]["score"] for event in events if event["data"]["score"] is not None]
    assert scores == sorted(scores, reverse=True)
    plan = client.get(f"/v1/plans/{plan_id}").json()
    last = events[-1]["data"]
    assert [last[name] for name in ("status", "score", "bound", "gap")] == [
        plan[name] for name in ("status", "score", "bound", "gap")
    ]


def test_stream_resumes(client: TestClient, plan_id: str) -> None:
    """With `Last-Event-ID` only what came later is told; after the last event nothing is."""
    everything = events_of(client.get(f"/v1/plans/{plan_id}/events"))
    rest = events_of(client.get(f"/v1/plans/{plan_id}/events", headers={"Last-Event-ID": "2"}))
    assert rest == everything[2:]
    last = {"Last-Event-ID": everything[-1]["id"]}
    assert events_of(client.get(f"/v1/plans/{plan_id}/events", headers=last)) == []


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "99999999999"])
def test_bad_last_event_id(client: TestClient, plan_id: str, given: str) -> None:
    """What is no id is refused before the stream begins."""
    response = client.get(f"/v1/plans/{plan_id}/events", headers={"Last-Event-ID": given})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "Last-Event-ID:"


def test_unknown_plan(client: TestClient) -> None:
    """There are no news of a plan that does not exist."""
    assert client.get("/v1/plans/plan_" + "0" * 32 + "/events").status_code == 404


def test_news_survive_a_crash(tmp_path: Path, start_server: Callable[..., Any], trace_bytes: bytes) -> None:
    """A client that comes back to the next server hears of what it has missed, without a hole."""
    first = start_server(tmp_path / "data")
    trace = first.http.post("/v1/traces", content=trace_bytes).raise_for_status().json()["id"]
    body = {"trace": trace, "topology": "1x4", "limits": {"time_s": 30}}
    plan = first.http.post("/v1/plans", json=body).raise_for_status().json()["id"]
    first.until(f"/v1/plans/{plan}", lambda found: found["score"] is not None)
    first.kill()
    second = start_server(tmp_path / "data")
    second.until(f"/v1/plans/{plan}", lambda found: found["attempt"] == 2)
    second.http.post(f"/v1/plans/{plan}/cancel").raise_for_status()
    events = events_of(second.http.get(f"/v1/plans/{plan}/events"))
    assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["data"]["status"] == "cancelled"
    assert {event["data"]["attempt"] for event in events} == {0, 1, 2}
