"""``POST /v1/replans``: the same words as at other doors, with plans that can be sent on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from placement import Plan
from solvers import Limits, Study, replan
from tests.builders.service import codes, npz, upload
from traces import Trace
from traces.synthetic import Synthetic, generate

BODY: dict[str, Any] = {"engine": "sglang", "solver": "load_balance", "expert_bytes": 1_000_000, "step_experts": 6}
PARAMS = {"num_layers": 2, "num_experts": 16, "top_k": 2, "num_tokens": 4096, "skew": 0.8, "affinity": 0.0}


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    """Return what was recorded first, and lately."""
    return [generate(Synthetic(**PARAMS, seed=seed)) for seed in (1, 2)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def running(traces: list[Trace]) -> Plan:
    """Return the plan that runs."""
    return Study.of(traces[0], "2x2", engine="sglang", redundant_experts=4).solve("load_balance").plan


@pytest.fixture(scope="module")
def trace_id(client: TestClient, traces: list[Trace]) -> str:
    """Upload what was recorded lately."""
    ids = np.concatenate([batch.topk_ids for batch in traces[1].batches()])
    sequences = np.concatenate([np.asarray(batch.seq_id) for batch in traces[1].batches()])
    return upload(client, npz(topk_ids=ids, num_experts=16, seq_id=sequences), name="today.npz")


def asked(client: TestClient, **body: Any) -> dict[str, Any]:
    """Ask for a re-plan and wait for it."""
    done = client.post("/v1/replans", json=BODY | body, headers={"Prefer": "wait=200"})
    assert done.status_code == 200, done.text
    found: dict[str, Any] = done.json()
    assert found["status"] == "succeeded", found
    return found


def test_the_same_words_give_the_same_plan(
    client: TestClient, traces: list[Trace], running: Plan, trace_id: str
) -> None:
    """REST and Python agree; the last step's plan is the one to change to, which can run and be re-planned in turn."""
    done = asked(client, trace=trace_id, running=running.as_dict(), name="tonight")
    found, plan = done["replan"], done["plan"]
    here = replan(running, traces[1], **BODY, limits=Limits(), workers=1)
    assert (found["verdict"], found["moved_experts"]) == (here.verdict, here.moves.experts)
    assert plan["physical_to_logical_map"] == here.plan.physical_to_logical_map.tolist()
    assert found["steps"][-1]["plan"]["physical_to_logical_map"] == plan["physical_to_logical_map"]
    assert Plan.from_dict(plan).provenance["predecessor"] == here.plan.provenance["predecessor"]
    assert client.get(f"/v1/replans/{done['id']}/plan").json() == plan
    assert (done["name"], done["replaces"], done["request"]["running"]) == ("tonight", None, None)
    events = client.get(f"/v1/replans/{done['id']}/events").text
    assert "event: done" in events

    again = asked(client, trace=trace_id, running=done["id"])
    assert (again["replaces"], again["replan"]["before"]) == (done["id"], found["after"])
    listed = client.get("/v1/replans", params={"limit": 1}).json()["items"]
    assert [(item["id"], item["replaces"], "replan" in item) for item in listed] == [(again["id"], done["id"], False)]
    replayed = client.post("/v1/evaluations", json={"plan": done["id"], "trace": trace_id})
    assert replayed.status_code == 200, replayed.text


def test_a_plan_knows_what_it_replaces(client: TestClient, trace_id: str) -> None:
    """The id is kept beside the plan, and refused where there is no such plan."""
    body: dict[str, Any] = {"trace": trace_id, "topology": "2x2", "solver": "contiguous"}
    first = client.post("/v1/plans", json=body).json()
    assert first["replaces"] is None
    second = client.post("/v1/plans", json=body | {"replaces": first["id"]}).json()
    assert client.get(f"/v1/plans/{second['id']}").json()["replaces"] == first["id"]
    refused = client.post("/v1/plans", json=body | {"replaces": "plan_" + "0" * 32})
    assert codes(refused) == {"/replaces": "unknown_plan"}


@pytest.mark.parametrize(
    ("said", "pointer", "code"),
    [
        ({"model": "/etc/passwd", "expert_bytes": None}, "/model", "unknown_model"),
        ({"limits": {"time_s": 3600}}, "/limits/time_s", "limit_range"),
        ({"running": "plan_" + "0" * 32}, "/running", "unknown_plan"),
        ({"topology": "topo_" + "0" * 32}, "/topology", "unknown_topology"),
        ({"dead_gpus": [9]}, "/dead_gpus", "gpu_range"),
        ({"horizon": 3}, "/horizon", None),
    ],
)
def test_what_is_refused(
    client: TestClient, running: Plan, trace_id: str, said: dict[str, Any], pointer: str, code: str | None
) -> None:
    """Each with the field that is at fault."""
    body = BODY | {"trace": trace_id, "running": running.as_dict()} | said
    done = client.post("/v1/replans", json=body)
    assert done.status_code == 422, done.text
    told = done.json()["errors"][0]
    assert told["pointer"] == pointer
    assert code is None or told["code"] == code
