"""Requests with one thing or several wrong in them, on both databases: no answer is a fault of the service.

`MUTATED_REQUESTS=20000 pytest tests/api/test_mutated_requests.py` sends so many to each database.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.settings.settings import Settings
from tests.builders.service import key_of, local_client

COUNT = int(os.environ.get("MUTATED_REQUESTS", "200"))
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "1x4",
    "9x9",
]
ODD += [
    "\ud800",
    "\x00",
    "a\nb",
    "x" * 5000,
    "../..",
    "é",
    [],
    {},
    [[]],
    [None],
    {"": 0},
    {"\x00": {}},
    [0] * 50,
    [{}] * 3,
]
TEXTS = [
    "%00",
    "%FF",
    "a%0Ab",
    "..%2f..",
    "x" * 2000,
    "-1",
    "0",
    "1e9",
    "true",
    "null",
    "%ED%A0%80",
    "1,2",
    "a",
    "*",
    "[]",
    "",
]
FIELDS = ["Prefer", "If-None-Match", "Idempotency-Key", "Last-Event-ID", "Upload-Offset", "Content-Digest", "Range"]
FIELDS += ["Repr-Digest", "Content-Encoding", "X-Request-ID", "Content-Type", "Accept", "Origin", "Expect", "Host"]
VALUES = [
    "",
    "wait=0",
    "wait=-1",
    "*",
    '"x"',
    "1",
    "-1",
    "9" * 30,
    "sha-256=:AAAA:",
    "gzip",
    "text/plain",
    "null",
    "a=b",
    "é",
]


def mutated(value: Any, draw: random.Random) -> Any:
    """Return JSON with something odd in one place of it."""
    value = copy.deepcopy(value)
    if not isinstance(value, (dict, list)) or not value or draw.random() < 0.2:
        return copy.deepcopy(draw.choice(ODD))
    place = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
    kind = draw.random()
    if kind < 0.15:
        del value[place]
    elif kind < 0.25 and isinstance(value, dict):
        value[draw.choice(["x", "", "\x00", "name", "limits"])] = copy.deepcopy(draw.choice(ODD))
    else:
        value[place] = mutated(value[place], draw)
    return value


class Sender:
    """Sends one mutated request after another to a service that has one of everything."""

    def __init__(self, client: TestClient, trace: bytes, key: dict[str, str]) -> None:
        self.client, self.key = client, key
        made = client.post("/v1/traces", content=trace, headers=key).json()["id"]
        ask = {"trace": made, "topology": "1x4", "solver": "contiguous"}
        plan = client.post("/v1/plans", json=ask, headers=key | {"Prefer": "wait=60"}).json()
        while plan["finished_at"] is None:  # the loops are compiled first, maybe
            plan = client.get(f"/v1/plans/{plan['id']}", headers=key | {"Prefer": "wait=60"}).json()
        assert plan["status"] == "succeeded", plan
        limits = {"time_s": 0.1, "work": 1000}
        front = ask | {"solver": "annealing", "points": 3, "limits": limits}
        full = ask | {
            "name": "a", "tags": ["b"], "seed": 1, "limits": limits, "start": plan["id"], "hold_out": 0.5,
            "objective": {"execution": "dispatch", "dedup": "gpu"}, "options": {},
            "constraints": {
                "pins": [{"expert": 1, "gpu": 0, "layer_id": 1}], "forbidden": [{"expert": 2, "gpu": 1}],
                "groups": [{"experts": [3, 4]}], "load_cap": 1.5,
            },
        }  # fmt: skip
        matrix = {"rank_cost_matrix": [[0.0, 1.0], [1.0, 0.0]], "gpus_per_node": 2, "num_nodes": 1}
        replay = {"plan": plan["plan"], "trace": made, "topology": {"gpus_per_node": [4]}, "part": "all"}
        self.bodies: dict[str, list[Any]] = {
            "/v1/plans/validate": [full, ask],
            "/v1/plans": [{**full, "limits": {"work": 1}}],
            "/v1/fronts": [front],
            "/v1/evaluations": [{"plan": plan["id"], "trace": made}, replay],
            "/v1/topologies": [
                {"topology": "2x4"},
                {"topology": matrix},
                {"description": "GPU0 GPU1\n", "options": "a=1"},
            ],
            "/v1/keys": [{"scopes": ["read"], "name": "k", "days": 1}],
            "/v1/uploads": [{"name": "u", "bytes": 5, "layer_ids": [1, 2]}],
            "/v1/imports": [{"source": "/tmp/x", "format": "npz"}],
        }
        self.labels = {"name": "n", "tags": ["t"]}
        self.ids = {"trace_id": made, "plan_id": plan["id"]}
        for name, path, body in (
            ("topology_id", "/v1/topologies", {"topology": "2x4"}),
            ("upload_id", "/v1/uploads", {}),
            ("front_id", "/v1/fronts", front),
        ):
            self.ids[name] = client.post(path, json=body, headers=key).json()["id"]
        self.operations = [
            (method, path, [item["name"] for item in operation.get("parameters", ()) if item["in"] == "query"])
            for path, methods in client.app.openapi()["paths"].items()  # type: ignore[attr-defined]  # it is ours
            for method, operation in methods.items()
        ]

    def send(self, draw: random.Random) -> tuple[int, str]:
        """Send one; return its status and what it was."""
        method, path, query = draw.choice(self.operations)
        if method == "delete" and "_id" in path:  # what there is stays
            path = path.replace("{trace_id}", "none").replace("{plan_id}", "none")
        given = {name: known if draw.random() < 0.8 else draw.choice(TEXTS) for name, known in self.ids.items()}
        url = path
        for part in [part.strip("{}") for part in path.split("/") if part.startswith("{")]:
            url = url.replace(f"{{{part}}}", given.get(part, draw.choice(["sglang", "0", "not-found", *TEXTS])))
        if query and draw.random() < 0.5:
            asked = draw.sample(query, min(len(query), draw.randint(1, 3)))
            url += "?" + "&".join(f"{name}={draw.choice(TEXTS)}" for name in asked)
        headers = self.key | {"Content-Type": "application/json", "Upload-Offset": "0"}
        if draw.random() < 0.3:
            headers[draw.choice(FIELDS)] = draw.choice(VALUES)
        content = b""
        if method in ("post", "patch", "put"):
            body = copy.deepcopy(draw.choice(self.bodies.get(path, [self.labels])))
            for _ in range(draw.randint(0, 3)):
                body = mutated(body, draw)
            content = json.dumps(body).encode()
            if draw.random() < 0.1:
                content = content[: draw.randrange(len(content) + 1)]
        encoded = {name.encode("ascii"): value.encode("utf-8") for name, value in headers.items()}
        answer = self.client.request(method.upper(), url, content=content, headers=encoded)
        return answer.status_code, f"{method} {url[:300]} {content[:1000]!r} {headers} -> {answer.text[:300]}"


@pytest.mark.timeout(7200 if COUNT > 1000 else 300)
def test_mutated_requests_are_no_fault(database_url: str, tmp_path: Path, make_trace_bytes: Any) -> None:
    """Whatever is changed in requests that were right, the answer is one of the documented ones."""
    settings = Settings(
        data_dir=tmp_path / "data", database_url=database_url, auth="required", max_workers=1, threads_per_plan=1,
        max_time_limit_s=0.5, max_wait_s=60, max_job_bytes=1 << 28, shutdown_s=0,
    )  # fmt: skip
    told: Counter[int] = Counter()
    with local_client(settings, raising=False) as client:
        sender = Sender(client, make_trace_bytes(tokens=200, layers=2, experts=8), key_of(client, "us", "admin"))
        client.app.state.services.settings.__dict__["max_wait_s"] = 0.0  # type: ignore[attr-defined]  # it is ours
        for number in range(COUNT):
            status, what = sender.send(random.Random(f"{number}"))
            told[status] += 1
            assert status < 500 or status in (503, 507), f"request {number}: {status} {what}"
    assert sum(count for status, count in told.items() if status < 300) > COUNT / 20, told
