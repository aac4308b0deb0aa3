"""``POST /v1/survival``: the proof of the library, with the plans for what is left."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from placement import Plan, Survive, Topology, prove_survival
from tests.builders.service import codes

NODE = {"unit": "nodes", "failures": 1}


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Return two layers of four experts on two nodes, each with a replica of all; the second layer lacks one."""
    table = [[0, 1, 2, 3, 3, 2, 1, 0], [0, 1, 2, 3, 3, 2, 1, 1]]
    return Plan.of(table, layer_ids=[0, 1], num_experts=4, gpus_per_node=(2, 2))


def test_the_same_proof(client: TestClient, plan: Plan) -> None:
    """REST and Python agree; what is left has a plan where one is asked for and possible."""
    body: dict[str, Any] = {"plan": plan.as_dict(), "survive": NODE, "topology": "2x2", "plans": True}
    found = client.post("/v1/survival", json=body)
    assert found.status_code == 200, found.text
    here = prove_survival(plan, Topology.parse("2x2"), Survive(unit="nodes"))
    assert found.json()["survival"] == json.loads(json.dumps(here.as_dict()))
    degraded = found.json()["degraded"]
    assert [each["number"] for each in degraded] == [0, 1]
    assert all(Plan.from_dict(each["plan"]).num_gpus == 2 for each in degraded if each["plan"] is not None)
    assert any(each["lost"] for each in degraded)


def test_what_is_refused(client: TestClient, plan: Plan, trace_id: str) -> None:
    """A trace of another model, a plan that is not there, no topology: with the fields that are at fault."""
    body: dict[str, Any] = {"plan": plan.as_dict(), "survive": NODE, "topology": "2x2"}
    assert codes(client.post("/v1/survival", json=body | {"trace": trace_id})) == {"/trace": "plan_differs"}
    assert codes(client.post("/v1/survival", json={**body, "topology": None})) == {"/topology": "topology_unknown"}
    missing = {**body, "plan": "plan_" + "0" * 32, "topology": "topo_" + "0" * 32}
    assert codes(client.post("/v1/survival", json=missing)) == {
        "/plan": "unknown_plan",
        "/topology": "unknown_topology",
    }
