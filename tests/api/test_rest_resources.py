"""Topologies, fronts, tags and names, checking without asking, examples."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.builders.machines import full, smi


def post(client: TestClient, path: str, body: dict[str, Any], status: int) -> dict[str, Any]:
    """Send a body, expect a status, and return the answer."""
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    content: dict[str, Any] = response.json()
    return content


def until_ended(client: TestClient, path: str) -> dict[str, Any]:
    """Poll until a front or plan has ended."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        content: dict[str, Any] = client.get(path).json()
        if content["status"] not in ("queued", "running"):
            return content
        time.sleep(0.1)
    raise AssertionError(content)


def test_topology_by_id_is_what_it_was(client: TestClient, trace_id: str) -> None:
    """A plan may name a stored topology, whose content it keeps; deleting the topology changes no plan."""
    file = {"gpus_per_node": 2, "num_nodes": 2, "gpu_speed": [1.0, 1.0, 2.0, 2.0]}
    made = post(client, "/v1/topologies", {"topology": file, "name": "mixed", "tags": ["lab"]}, 201)
    assert (made["num_gpus"], made["num_nodes"], made["topology"]) == (4, 2, file)
    body = {"trace": trace_id, "topology": made["id"], "solver": "contiguous"}
    plan = post(client, "/v1/plans", body, 202)
    assert plan["request"]["topology"]["gpu_speed"] == file["gpu_speed"]
    assert client.get(f"/v1/topologies/{made['id']}").json() == made
    assert client.delete(f"/v1/topologies/{made['id']}").status_code == 204
    assert client.get(f"/v1/topologies/{made['id']}").status_code == 404
    assert post(client, "/v1/plans", body, 422)["errors"][0]["code"] == "unknown_topology"
    assert until_ended(client, f"/v1/plans/{plan['id']}")["status"] == "succeeded"


def test_bad_topology_is_not_kept(client: TestClient) -> None:
    """A topology is checked before it is kept."""
    answer = post(client, "/v1/topologies", {"topology": {"gpus_per_node": 2, "num_nodes": 2, "slots": [1]}}, 422)
    assert answer["errors"][0]["pointer"].startswith("/topology")


def test_description_of_a_machine_is_kept_as_what_it_means(client: TestClient, trace_id: str) -> None:
    """Pasted text becomes a topology; its notes and warnings are told, and a plan for it carries them."""
    text = smi(full(4, "SYS"), nics=0, escapes=False)
    made = post(client, "/v1/topologies", {"description": text, "options": "hosts=2,network_gb_s=50"}, 201)
    assert (made["num_gpus"], made["num_nodes"]) == (8, 2)
    assert made["topology"]["intra_node"]["bandwidth_gb_s"] == 12.5
    assert any("No NVLink was seen" in note for note in made["notes"])
    assert "costs less than one inside" in made["warnings"][0]
    body = {"trace": trace_id, "topology": made["id"], "solver": "contiguous"}
    plan = until_ended(client, f"/v1/plans/{post(client, '/v1/plans', body, 202)['id']}")
    assert {*made["notes"], *made["warnings"]} <= set(plan["summary"]["notes"])
    for wrong in (
        {"description": text, "topology": "1x4"},
        {},
        {"topology": "1x4", "options": "hosts=2"},
        {"description": text, "options": "ibstat=/etc/hostname"},
        {"description": "hello"},
    ):
        assert post(client, "/v1/topologies", wrong, 422)["errors"]


def test_topologies_list_own_and_known(client: TestClient) -> None:
    """The list has one's own topologies, filtered by tag, and the presets."""
    made = post(client, "/v1/topologies", {"topology": "2x4", "tags": ["rack_7", "x"]}, 201)
    page = client.get("/v1/topologies", params={"tag": "rack_7"}).json()
    assert [item["id"] for item in page["items"]] == [made["id"]]
    assert client.get("/v1/topologies", params={"tag": "rackA7"}).json()["items"] == [], "_ is no wildcard"
    assert "hgx_h100" in {item["name"] for item in page["presets"]}


def test_names_and_tags_change(client: TestClient, trace_id: str) -> None:
    """PATCH changes what it names and leaves the rest; lists filter by all tags that are asked for."""
    body = {"trace": trace_id, "topology": "1x2", "solver": "contiguous", "name": "a", "tags": ["one", "two"]}
    path = f"/v1/plans/{post(client, '/v1/plans', body, 202)['id']}"
    until_ended(client, path)
    etag = client.get(path).headers["etag"]
    renamed = client.patch(path, json={"name": "b"}).json()
    assert (renamed["name"], renamed["tags"]) == ("b", ["one", "two"])
    assert client.get(path).headers["etag"] != etag
    assert client.patch(path, json={"tags": ["three"]}).json()["tags"] == ["three"]
    listed = [item["name"] for item in client.get("/v1/plans", params={"tag": "three"}).json()["items"]]
    assert listed == ["b"]
    assert client.get("/v1/plans", params=[("tag", "three"), ("tag", "one")]).json()["items"] == []
    assert client.patch(f"/v1/traces/{trace_id}", json={"tags": ["kept"]}).json()["name"] == "tiny.npz"
    assert client.patch(path, json={"tags": ['no "quotes"']}).status_code == 422
    assert client.patch("/v1/plans/plan_0", json={}).status_code == 404


def test_validation_queues_nothing(client: TestClient, trace_id: str) -> None:
    """A request is checked as if it were made, and only checked."""
    before = client.get("/v1/plans").json()["items"][:1]
    body = {"trace": trace_id, "topology": "1x4"}
    assert post(client, "/v1/plans/validate", body, 200)["request"]["limits"]["time_s"] == 10
    answer = post(client, "/v1/plans/validate", {**body, "topology": "1x4x4", "solver": "nobody"}, 422)
    assert {item["pointer"] for item in answer["errors"]} == {"/topology", "/solver"}
    assert client.get("/v1/plans").json()["items"][:1] == before


@pytest.fixture(scope="module")
def front(client: TestClient, trace_id: str) -> dict[str, Any]:
    """Return a finished front."""
    body = {"trace": trace_id, "topology": "1x4", "points": 3, "limits": {"work": 300_000}, "tags": ["f"]}
    asked = post(client, "/v1/fronts", body, 202)
    return until_ended(client, f"/v1/fronts/{asked['id']}")


def test_front_has_a_plan_at_every_point(client: TestClient, front: dict[str, Any], trace_id: str) -> None:
    """Points are sorted, none is beaten by another, and each has a plan file that can be evaluated."""
    assert front["status"] == "succeeded", front["error"]
    points = front["front"]["points"]
    assert 1 <= len(points) <= 3
    figures = [(point["imbalance"], point["traffic"]) for point in points]
    assert figures == sorted(figures)
    assert [traffic for _, traffic in figures] == sorted((traffic for _, traffic in figures), reverse=True)
    for number in range(len(points)):
        plan = client.get(f"/v1/fronts/{front['id']}/points/{number}/plan").json()
        verdict = post(client, "/v1/evaluations", {"plan": plan, "trace": trace_id}, 200)
        assert verdict["tokens"] == 2000
    assert client.get(f"/v1/fronts/{front['id']}/points/{len(points)}/plan").status_code == 404


def test_fronts_and_plans_are_apart(client: TestClient, front: dict[str, Any]) -> None:
    """A front is no plan: neither list shows the other's, and neither address takes the other's id."""
    assert front["id"] in {item["id"] for item in client.get("/v1/fronts", params={"tag": "f"}).json()["items"]}
    assert front["id"] not in client.get("/v1/plans", params={"limit": 200}).text
    for method, path in (("GET", ""), ("GET", "/plan"), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
        assert client.request(method, f"/v1/plans/{front['id']}{path}").status_code == 404


def test_front_against_moves_needs_a_start(client: TestClient, trace_id: str) -> None:
    """What does not say what is moved from is refused before it is queued."""
    answer = post(client, "/v1/fronts", {"trace": trace_id, "topology": "1x4", "against": "bytes_moved"}, 422)
    assert answer["errors"][0]["pointer"] == "/start"


def test_front_is_cancelled_with_what_it_has(client: TestClient, trace_id: str) -> None:
    """A cancelled front keeps the points that were found."""
    body = {"trace": trace_id, "topology": "1x4", "limits": {"time_s": 50}}
    path = f"/v1/fronts/{post(client, '/v1/fronts', body, 202)['id']}"
    deadline = time.monotonic() + 60
    while client.get(path).json()["status"] == "queued" and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2.0)
    client.post(f"{path}/cancel")
    ended = until_ended(client, path)
    assert ended["status"] == "cancelled"
    assert ended["front"] is None or ended["front"]["stopped"]
    assert client.delete(path).status_code == 204


def test_examples_are_accepted(client: TestClient, trace_id: str) -> None:
    """Every example of a plan passes the check as it stands, with a trace put in."""
    examples = client.get("/v1/examples").json()["items"]
    plans = [item["body"] for item in examples if item["path"] == "/v1/plans"]
    assert len(plans) >= 2
    for body in plans:
        post(client, "/v1/plans/validate", {**body, "trace": trace_id}, 200)


def test_label_nothing(client: TestClient, trace_id: str) -> None:
    """A change of labels that changes nothing is answered like any other, and what is not there is missing still."""
    plan = client.post("/v1/plans", json={"trace": trace_id, "topology": "1x4", "solver": "contiguous"}).json()["id"]
    topology = client.post("/v1/topologies", json={"topology": "2x4"}).json()["id"]
    for path in (f"/v1/traces/{trace_id}", f"/v1/plans/{plan}", f"/v1/topologies/{topology}"):
        assert client.patch(path, json={}).status_code == 200, path
        assert client.patch(path[:-2] + "zz", json={}).status_code == 404, path


def test_allow_is_of_the_path_itself(client: TestClient) -> None:
    """A path that the template of another route happens to match allows its own methods only."""
    assert client.request("OPTIONS", "/v1/plans/validate").headers["allow"] == "POST"
