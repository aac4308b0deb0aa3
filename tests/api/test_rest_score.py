"""Score analysis: the figures of a plan are those of its search, taken apart."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.builders.service import npz_bytes

WAIT = {"Prefer": "wait=100"}


def make(client: TestClient, trace_id: str, **fields: Any) -> dict[str, Any]:
    """Return a finished plan."""
    body = {"trace": trace_id, "topology": "2x2", "solver": "annealing", "limits": {"work": 20_000}, **fields}
    response = client.post("/v1/plans", json=body, headers=WAIT)
    assert response.status_code == 200, response.text
    plan: dict[str, Any] = response.json()
    assert plan["status"] == "succeeded", plan["error"]
    return plan


def look(client: TestClient, plan: dict[str, Any], **query: Any) -> dict[str, Any]:
    """Return the analysis of a plan."""
    response = client.get(f"/v1/plans/{plan['id']}/score", params=query)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


@pytest.fixture(scope="module")
def plan(client: TestClient, trace_id: str) -> dict[str, Any]:
    """Return a finished plan for tokens that go from layer to layer."""
    return make(client, trace_id, constraints={"load_cap": 1.1})


@pytest.mark.parametrize(
    "fields",
    [
        {"constraints": {"load_cap": 1.01}},
        {"objective": {"execution": "dispatch", "dedup": "none"}},
        {
            "objective": {"execution": "dispatch", "ownership": "sequence"},
            "slots_per_gpu": 10,
            "constraints": {"load_cap": 1.1, "load_quantile": 0.9},
        },
    ],
)
def test_terms_add_up_to_the_score_of_the_search(client: TestClient, trace_id: str, fields: dict[str, Any]) -> None:
    """The score is the one that the search ended with, and so are its parts, whatever way tokens travel."""
    plan = make(client, trace_id, **fields)
    found = look(client, plan)
    assert found["score"] == pytest.approx(plan["score"], rel=1e-12)
    assert (found["bound"], found["gap"]) == pytest.approx((plan["bound"], plan["gap"]))
    assert sum(term["cost"] for term in found["terms"]) == pytest.approx(found["score"])
    values = {term["name"]: term["value"] for term in found["terms"]}
    layers = found["layers"]
    assert [layer["layer_id"] for layer in layers] == [1, 2, 3, 4, 5, 6]
    assert sum(layer["traffic"] or 0 for layer in layers) == pytest.approx(values["traffic"])
    assert np.mean([layer["max_load"] for layer in layers]) - 1 == pytest.approx(values["imbalance"])
    assert np.mean([layer["load_excess"] for layer in layers]) == pytest.approx(values["load_excess"])
    assert found["warnings"] == [item for item in plan["warnings"] if item.startswith("Load cap")]


def test_layers_say_which_gpu_is_busiest(client: TestClient, plan: dict[str, Any]) -> None:
    """The busiest GPU is that of the loads; nothing is below its bound; the last layer sends nothing."""
    found = look(client, plan)
    for layer, load in zip(found["layers"], found["gpu_load"], strict=True):
        assert layer["max_load"] == pytest.approx(max(load))
        assert load[layer["busiest_gpu"]] == max(load)
        assert layer["max_load_bound"] <= layer["max_load"] + 1e-9
        assert layer["load_cap"] == 1.1
    *before, last = found["layers"]
    assert (last["traffic"], last["traffic_bound"], last["next_layer_id"]) == (None, None, None)
    for layer in before:
        assert 0 <= layer["traffic_bound"] <= layer["traffic"] + 1e-12
        assert layer["next_layer_id"] == layer["layer_id"] + 1
        assert 0 <= layer["leaves_node"] <= layer["leaves_gpu"] <= 1


def test_traffic_is_of_the_layer_that_is_asked_for(client: TestClient, plan: dict[str, Any]) -> None:
    """The matrices hold shares, the nodes' are sums of the GPUs', and the layer with most traffic comes unasked."""
    found = look(client, plan)
    most = max(found["layers"][:-1], key=lambda layer: layer["traffic"])
    assert found["traffic"]["layer_id"] == most["layer_id"]
    shown = look(client, plan, layer=3)["traffic"]
    assert (shown["layer_id"], shown["next_layer_id"]) == (3, 4)
    gpus, nodes = np.array(shown["gpus"]), np.array(shown["nodes"])
    assert gpus.sum() == pytest.approx(1)
    assert nodes == pytest.approx(gpus.reshape(2, 2, 2, 2).sum(axis=(1, 3)))
    assert 1 - np.trace(gpus) == pytest.approx(found["layers"][2]["leaves_gpu"])
    assert 1 - np.trace(nodes) == pytest.approx(found["layers"][2]["leaves_node"])
    assert look(client, plan, layer=6)["traffic"] is None


def test_top_is_how_many_are_named(client: TestClient, plan: dict[str, Any]) -> None:
    """Experts, pairs and replicas come with the costliest first, and are where the plan has put them."""
    found = look(client, plan, top=5)
    assert [len(found[name]) for name in ("experts", "pairs", "replicas")] == [5, 5, 5]
    table = np.array(plan["plan"]["physical_to_logical_map"])
    for replica in found["replicas"]:
        assert replica["expert"] in table[replica["layer_id"] - 1].reshape(4, -1)[replica["gpu"]]
    for expert in found["experts"]:
        places = np.flatnonzero(table[expert["layer_id"] - 1] == expert["expert"]) // (table.shape[1] // 4)
        assert expert["gpus"] == places.tolist()
    assert [pair["next_layer_id"] - pair["layer_id"] for pair in found["pairs"]] == [1] * 5


def test_analysis_is_known_by_its_tag(client: TestClient, plan: dict[str, Any]) -> None:
    """The same question has the same tag, and is not counted again; another one has another."""
    path = f"/v1/plans/{plan['id']}/score"
    tag = client.get(path).headers["etag"]
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
    assert client.get(path, params={"layer": 2}, headers={"If-None-Match": tag}).status_code == 200


def test_what_can_not_be_analysed_is_told(client: TestClient, plan: dict[str, Any], trace_id: str) -> None:
    """No plan, nothing found so far, a layer that is not there, a trace that was deleted."""
    assert client.get("/v1/plans/plan_0/score").status_code == 404
    answer = client.get(f"/v1/plans/{plan['id']}/score", params={"layer": 99})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "?layer")
    body = {"trace": trace_id, "topology": "2x2", "limits": {"time_s": 60}}
    running = client.post("/v1/plans", json=body).json()["id"]
    waiting = client.post("/v1/plans", json=body).json()["id"]  # the service of these tests runs one at a time
    answer = client.get(f"/v1/plans/{waiting}/score")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/no-plan-yet")
    for name in (waiting, running):
        client.post(f"/v1/plans/{name}/cancel")
    content = npz_bytes(tokens=200, seed=int(secrets.token_hex(3), 16))
    gone = client.post("/v1/traces", content=content).json()["id"]
    left = make(client, gone)
    assert client.delete(f"/v1/traces/{gone}").status_code == 204
    answer = client.get(f"/v1/plans/{left['id']}/score")
    assert (answer.status_code, "was deleted" in answer.json()["detail"]) == (404, True)
