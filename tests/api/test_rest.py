"""The REST interface, resource by resource."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from placement import Objective, Plan, Topology, evaluate
from placement import Problem as PlacementProblem
from placement.engines import ENGINES, engine_of
from placement.exports import EXPORTS
from solvers import Limits, solve
from tests.builders.service import codes, upload
from traces import Profile, Trace, load

WAIT = {"Prefer": "wait=240"}  # the first search on a machine compiles the loops
UNKNOWN_TRACE = "sha256:" + "0" * 64
UNKNOWN_PLAN = "plan_" + "0" * 32


@pytest.fixture(scope="module")
def body(trace_id: str) -> dict[str, Any]:
    """Return a request that is done at once."""
    return {"trace": trace_id, "topology": "1x4", "limits": {"work": 2000}}


@pytest.fixture(scope="module")
def plan(client: TestClient, body: dict[str, Any]) -> dict[str, Any]:
    """Return a finished plan."""
    response = client.post("/v1/plans", json=body, headers=WAIT)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


class TestTraces:
    def test_same_bytes_are_one_trace(self, client: TestClient, make_trace_bytes: Callable[..., bytes]) -> None:
        """The first upload creates the trace, named by its digest; the second finds it."""
        content = make_trace_bytes(seed=1)
        first = client.post("/v1/traces", content=content)
        again = client.post("/v1/traces", content=content)
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json() == again.json()
        assert first.json()["id"] == "sha256:" + hashlib.sha256(content).hexdigest()
        assert first.headers["location"] == f"/v1/traces/{first.json()['id']}"

    def test_what_is_known(self, client: TestClient, trace_id: str) -> None:
        """A trace tells its axes, and has a strong ETag that saves sending it again."""
        response = client.get(f"/v1/traces/{trace_id}")
        content = response.json()
        names = ("kind", "format", "engine", "num_tokens", "num_experts", "top_k", "columns")
        known = {name: content[name] for name in names}
        assert known == {
            "kind": "trace",
            "format": "npz",
            "engine": None,
            "num_tokens": 2000,
            "num_experts": 32,
            "top_k": 2,
            "columns": ["seq_id"],
        }
        assert content["layer_ids"] == [1, 2, 3, 4, 5, 6]
        etag = response.headers["etag"]
        assert etag.startswith('"')
        assert client.get(f"/v1/traces/{trace_id}", headers={"If-None-Match": etag}).status_code == 304

    def test_content_digest(self, client: TestClient, trace_bytes: bytes, trace_id: str) -> None:
        """A digest that fits is accepted, whatever else is stated; one that does not, or can't be read, is refused."""
        good = base64.b64encode(hashlib.sha256(trace_bytes).digest()).decode()
        bad = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
        longer = base64.b64encode(hashlib.sha512(trace_bytes).digest()).decode()

        def status(field: str) -> int:
            return client.post("/v1/traces", content=trace_bytes, headers={"Content-Digest": field}).status_code

        assert status(f"unixsum=:AAA=:, sha-512=:{longer}:, sha-256=:{good}:") == 200
        assert status(f"sha-256=:{bad}:") == 400
        assert status(f"sha-512=:{bad}:, sha-256=:{good}:") == 400
        assert status("sha-256=" + good) == 400

    def test_parameters_are_part_of_the_reading(self, client: TestClient) -> None:
        """What the file does not state can be given; another upload that says otherwise is refused."""
        file = io.BytesIO()
        np.savez(file, topk_ids=np.random.default_rng(7).permuted(np.tile(np.arange(8), (300, 2, 1)), axis=2)[:, :, :2])
        params = {"num_experts": 16, "layer_ids": "3-3,5", "format": "npz"}
        trace = client.get(f"/v1/traces/{upload(client, file.getvalue(), **params)}").json()
        assert (trace["num_experts"], trace["layer_ids"]) == (16, [3, 5])
        assert client.post("/v1/traces", content=file.getvalue(), params={"layer_ids": "3,5"}).status_code == 200
        other = client.post("/v1/traces", content=file.getvalue(), params={"num_experts": 8})
        assert other.status_code == 409
        assert codes(other) == {"?num_experts": "trace_differs"}

    def test_pages(self, client: TestClient, make_trace_bytes: Callable[..., bytes]) -> None:
        """Lists come in pages, the newest first, which cursors and Link fields join."""
        added = [upload(client, make_trace_bytes(tokens=100, seed=seed)) for seed in (11, 12, 13)]
        first = client.get("/v1/traces", params={"limit": 2})
        assert [item["id"] for item in first.json()["items"]] == added[:0:-1]
        assert 'rel="next"' in first.headers["link"]
        second = client.get(first.headers["link"].partition(">")[0][1:])
        assert second.json()["items"][0]["id"] == added[0]

    def test_delete(self, client: TestClient, make_trace_bytes: Callable[..., bytes]) -> None:
        """A deleted trace is gone, and can be uploaded again."""
        content = make_trace_bytes(tokens=100, seed=21)
        trace_id = upload(client, content)
        assert client.delete(f"/v1/traces/{trace_id}").status_code == 204
        assert client.get(f"/v1/traces/{trace_id}").status_code == 404
        assert client.delete(f"/v1/traces/{trace_id}").status_code == 404
        assert client.post("/v1/traces", content=content).status_code == 201

    def test_profile(self, client: TestClient, tmp_path: Any) -> None:
        """A profile that was made elsewhere is a trace to plan from."""
        ids = np.random.default_rng(3).permuted(np.tile(np.arange(8), (500, 3, 1)), axis=2)[:, :, :2]
        Profile.of(Trace.of(ids, num_experts=8)).save(tmp_path / "profile.npz")
        trace_id = upload(client, (tmp_path / "profile.npz").read_bytes())
        assert client.get(f"/v1/traces/{trace_id}").json()["kind"] == "profile"
        body = {"trace": trace_id, "topology": "1x2", "limits": {"work": 500}}
        assert client.post("/v1/plans", json=body, headers=WAIT).json()["status"] == "succeeded"
        split = client.post("/v1/plans", json={**body, "hold_out": 0.5})
        assert codes(split) == {"/hold_out": "hold_out_counts"}


class TestPlans:
    def test_plan(self, plan: dict[str, Any], trace_id: str) -> None:
        """A finished plan has its figures, its request with the defaults, and a summary beside the contiguous plan."""
        assert plan["status"] == "succeeded"
        assert plan["trace"] == trace_id
        assert plan["score"] == plan["plan"]["score"]
        assert plan["gap"] == pytest.approx((plan["score"] - plan["bound"]) / plan["score"])
        assert plan["termination"]["deterministic"]
        assert plan["plan"]["provenance"]["objective"]["execution"] == "context_coherent"
        assert plan["request"]["limits"] == {"time_s": None, "work": 2000, "gap": None, "stall_s": None}
        figures = plan["summary"]["plans"]
        assert list(figures) == ["contiguous", "plan"]
        ours, before = (figures[name]["held_out"]["cross_gpu_fraction"] for name in ("plan", "contiguous"))
        assert ours < before

    def test_accepted_then_polled(self, client: TestClient, body: dict[str, Any]) -> None:
        """Without a wait the answer is 202; polling costs nothing until something is new."""
        response = client.post("/v1/plans", json={**body, "limits": {"time_s": 1.0}})
        assert response.status_code == 202
        assert response.headers["retry-after"] == "1"
        assert response.headers["etag"].startswith('W/"')
        place = response.headers["location"]
        news = client.get(place, headers={"If-None-Match": response.headers["etag"], **WAIT})
        assert news.status_code == 200
        assert news.headers["etag"] != response.headers["etag"]
        done = client.get(place, headers=WAIT)
        assert done.json()["status"] == "succeeded"
        assert "retry-after" not in done.headers
        assert client.get(place, headers={"If-None-Match": done.headers["etag"]}).status_code == 304

    def test_default_time_limit(self, client: TestClient, trace_id: str) -> None:
        """Left out, the time limit is 10 s; null means none of its own."""
        found = []
        for limits in ({}, {"time_s": None, "stall_s": 5.0}):
            response = client.post("/v1/plans", json={"trace": trace_id, "topology": "1x4", "limits": limits})
            found.append(response.json()["request"]["limits"]["time_s"])
            client.post(response.headers["location"] + "/cancel")
        assert found == [10.0, None]

    def test_plan_file(self, client: TestClient, plan: dict[str, Any]) -> None:
        """The plan file alone is what the library reads."""
        response = client.get(f"/v1/plans/{plan['id']}/plan")
        assert response.json() == plan["plan"]
        assert isinstance(Plan.from_dict(response.json()), Plan)
        etag = {"If-None-Match": response.headers["etag"]}
        assert client.get(f"/v1/plans/{plan['id']}/plan", headers=etag).status_code == 304

    def test_exports(self, client: TestClient, plan: dict[str, Any]) -> None:
        """The file of an engine, read back, is the plan; what the engine would misread is a problem document."""
        url = f"/v1/plans/{plan['id']}/exports"
        layers = plan["plan"]["layer_ids"]
        model = {"model_layers": layers[-1] + 1, "first_moe_layer": layers[0], "force": True}
        unforced = client.get(f"{url}/sglang", params=model | {"force": False})
        assert (unforced.status_code, codes(unforced)) == (422, {"/engine": "engine_travels_otherwise"})
        response = client.get(f"{url}/sglang", params=model)
        assert response.status_code == 200, response.text
        assert "sglang.json" in response.headers["content-disposition"]
        rows = response.json()["physical_to_logical_map"]
        assert rows[layers[0] :] == plan["plan"]["physical_to_logical_map"]
        etag = {"If-None-Match": response.headers["etag"]}
        assert client.get(f"{url}/sglang", params=model, headers=etag).status_code == 304
        assert codes(client.get(f"{url}/sglang", params={"force": True})) == {"/layer_ids": "model_unknown"}
        assert set(codes(client.get(f"{url}/hygon", params={"force": True}))) == {"/model_class", "/model_name"}
        assert codes(client.get(f"{url}/sglang", params=model | {"layer": 1})) == {"/layer": "option_unused"}
        assert client.get(f"{url}/tensorrt-llm", params=model).status_code == 200
        assert client.get(f"{url}/nothing").status_code == 404
        assert client.get(f"/v1/plans/{UNKNOWN_PLAN}/exports/sglang").status_code == 404

    def test_same_seed_and_work_same_plan(self, client: TestClient, body: dict[str, Any], plan: dict[str, Any]) -> None:
        """A work limit makes plans reproducible."""
        again = client.post("/v1/plans", json=body, headers=WAIT).json()
        assert again["id"] != plan["id"]
        assert again["plan"]["physical_to_logical_map"] == plan["plan"]["physical_to_logical_map"]

    @pytest.mark.parametrize("objective", [{}, {"execution": "dispatch", "dedup": "node"}])
    def test_same_plan_as_the_library(
        self, client: TestClient, body: dict[str, Any], trace_bytes: bytes, tmp_path: Path, objective: dict[str, Any]
    ) -> None:
        """The same seed and work give the plan that the library gives, judged by the same figures."""
        asked = {**body, "topology": "2x2", "slots_per_gpu": 9, "seed": 3, "objective": objective}
        ours = client.post("/v1/plans", json=asked, headers=WAIT).json()
        (tmp_path / "tiny.npz").write_bytes(trace_bytes)
        trace = load(tmp_path / "tiny.npz")
        assert isinstance(trace, Trace)
        fit, held_out = trace.split(0.5)
        aim = Objective(**objective)
        problem = PlacementProblem(Profile.of(fit), Topology.parse("2x2"), 9, aim)
        plan = solve(problem, "auto", limits=Limits(work=body["limits"]["work"]), seed=3).plan
        assert ours["plan"]["physical_to_logical_map"] == plan.physical_to_logical_map.tolist()
        assert (ours["score"], ours["bound"]) == (plan.score, plan.bound)
        figures = evaluate(plan, held_out, problem.topology)
        summary = ours["summary"]["plans"]["plan"]["held_out"]
        assert (summary["traffic"], summary["fanout_nodes"]) == (figures.traffic, figures.fanout_nodes)

    def test_lost_file(
        self, client: TestClient, body: dict[str, Any], make_trace_bytes: Callable[..., bytes], plan: dict[str, Any]
    ) -> None:
        """A trace whose file has gone from the disk is reported as that, and heals by another upload."""
        content = make_trace_bytes(tokens=100, seed=51)
        trace_id = upload(client, content)
        services = client.app.state.services  # type: ignore[attr-defined]  # FastAPI
        services.parts.blobs.path(trace_id).unlink()
        failed = client.post("/v1/plans", json={**body, "trace": trace_id}, headers=WAIT).json()
        assert [item["code"] for item in failed["error"]["errors"]] == ["trace_lost"]
        again = {"plan": plan["id"], "trace": trace_id}
        assert codes(client.post("/v1/evaluations", json=again)) == {"/trace": "trace_lost"}
        assert client.post("/v1/traces", content=content).status_code == 200
        assert client.post("/v1/evaluations", json=again).status_code == 200

    def test_start(self, client: TestClient, body: dict[str, Any], plan: dict[str, Any]) -> None:
        """A plan that starts from another is never worse."""
        limits = {"time_s": 0.2}
        started = client.post(
            "/v1/plans", json={**body, "solver": "random", "start": plan["id"], "limits": limits}, headers=WAIT
        )
        assert started.json()["score"] <= plan["score"] + 1e-12

    def test_constraints(self, client: TestClient, body: dict[str, Any]) -> None:
        """Pins, exclusions and groups are kept, in the model's layers."""
        constraints = {
            "load_cap": 1.3,
            "layer_load_caps": [{"layer_id": 6, "load_cap": 1.4}],
            "load_quantile": 0.9,
            "load_groups": "sequences",
            "pins": [{"expert": 0, "gpu": 3, "layer_id": 6}],
            "forbidden": [{"expert": 1, "gpu": 0}],
            "groups": [{"experts": [4, 5]}],
            "extra_bytes": 2500,
        }
        asked = {**body, "topology": "2x2", "constraints": constraints, "expert_bytes": 1000}
        response = client.post("/v1/plans", json=asked, headers=WAIT)
        found = Plan.from_dict(response.json()["plan"])
        assert found.replicas_on_gpu[5, 0, 3] == 1
        assert found.replicas_on_gpu[:, 1, 0].sum() == 0
        assert (found.gpu_of_expert[:, 4] // 2 == found.gpu_of_expert[:, 5] // 2).all()
        recorded = found.provenance["constraints"]
        assert recorded["layer_load_caps"] == [{"layer_id": 6, "load_cap": 1.4}]
        assert (recorded["load_quantile"], recorded["load_groups"]) == (0.9, "sequences")
        assert (recorded["extra_bytes"], found.provenance["expert_bytes"]) == (2500, 1000)

    def test_topology_object(self, client: TestClient, body: dict[str, Any]) -> None:
        """A topology can be given as in a topology file."""
        topology = {"gpus_per_node": [2, 1], "inter_node": {"bandwidth_gb_s": 25.0}, "gpu_speed": [1.0, 1.0, 0.5]}
        response = client.post("/v1/plans", json={**body, "topology": topology}, headers=WAIT)
        assert response.json()["status"] == "succeeded", response.text
        assert response.json()["plan"]["gpus_per_node"] == [2, 1]

    def test_idempotency_key(self, client: TestClient, body: dict[str, Any]) -> None:
        """A request sent twice makes one plan; another body under the same key is refused."""
        key = {"Idempotency-Key": "order-66"}
        first = client.post("/v1/plans", json=body, headers=key)
        again = client.post("/v1/plans", json=body, headers=key)
        assert first.json()["id"] == again.json()["id"]
        other = client.post("/v1/plans", json={**body, "seed": 1}, headers=key)
        assert other.status_code == 422
        assert other.json()["type"] == "/problems/idempotency-key-reused"

    def test_idempotency_key_tells_null_from_nothing(self, client: TestClient, trace_id: str) -> None:
        """No time limit of its own is another request than the default one."""
        key = {"Idempotency-Key": "null-or-nothing"}
        body = {"trace": trace_id, "topology": "1x4", "solver": "contiguous", "limits": {}}
        assert client.post("/v1/plans", json=body, headers=key).status_code in (200, 202)
        other = client.post("/v1/plans", json={**body, "limits": {"time_s": None}}, headers=key)
        assert other.status_code == 422

    def test_cancel_keeps_the_plan(self, client: TestClient, body: dict[str, Any]) -> None:
        """A cancelled search keeps its best plan; cancelling again changes nothing; then it can be deleted."""
        limits = {"time_s": 50.0}
        place = client.post("/v1/plans", json={**body, "limits": limits}).headers["location"]
        assert client.delete(place).status_code in (204, 409)
        place = client.post("/v1/plans", json={**body, "limits": limits}).headers["location"]
        etag = '"none"'
        while (now := client.get(place, headers={"If-None-Match": etag, **WAIT}).json())["score"] is None:
            etag = client.get(place).headers["etag"]
        assert now["status"] == "running"
        assert client.delete(place).status_code == 409
        assert client.post(place + "/cancel").status_code == 200
        done = client.get(place, headers=WAIT).json()
        assert (done["status"], done["termination"]["limit"]) == ("cancelled", "cancelled")
        assert done["plan"]["score"] == done["score"] <= now["score"]
        assert client.post(place + "/cancel").json() == done
        assert client.delete(place).status_code == 204
        assert client.get(place).status_code == 404

    def test_list_by_status(self, client: TestClient, plan: dict[str, Any]) -> None:
        """Plans are listed without their maps, by status if asked for."""
        page = client.get("/v1/plans", params={"status": "succeeded", "limit": 200}).json()
        listed = {item["id"]: item for item in page["items"]}
        assert plan["id"] in listed
        assert "plan" not in listed[plan["id"]]
        assert client.get("/v1/plans", params={"status": "running"}).json()["items"] == []

    def test_trace_in_use(self, client: TestClient, make_trace_bytes: Callable[..., bytes]) -> None:
        """A trace that a search needs is not deleted."""
        trace_id = upload(client, make_trace_bytes(tokens=500, seed=31))
        body = {"trace": trace_id, "topology": "1x4", "limits": {"time_s": 50.0}}
        place = client.post("/v1/plans", json=body).headers["location"]
        assert client.delete(f"/v1/traces/{trace_id}").status_code == 409
        client.post(place + "/cancel")
        client.get(place, headers=WAIT)
        assert client.delete(f"/v1/traces/{trace_id}").status_code == 204
        assert client.get(place).json()["trace"] == trace_id

    def test_no_plan_fails(self, client: TestClient, make_trace_bytes: Callable[..., bytes]) -> None:
        """What only the search finds out is told in the plan, with a pointer into the request."""
        trace_id = upload(client, make_trace_bytes(tokens=60, seed=41))
        body = {"trace": trace_id, "topology": "1x4", "limits": {"work": 100}, "hold_out": 1e-6}
        failed = client.post("/v1/plans", json=body, headers=WAIT).json()
        assert failed["status"] == "failed"
        assert failed["error"]["errors"][0]["pointer"] == "/hold_out"
        missing = client.get(f"/v1/plans/{failed['id']}/plan")
        assert (missing.status_code, missing.json()["type"]) == (404, "/problems/no-plan-yet")


class TestViolations:
    def test_all_at_once(self, client: TestClient) -> None:
        """Every fault of the fields is reported, with a pointer to each."""
        body = {
            "trace": "nonsense",
            "topology": {"gpus_per_node": 0, "nodes": 3},
            "constraints": {
                "load_cap": 0.5,
                "load_quantile": 1.0,
                "load_groups": "days",
                "pins": [{"expert": -1, "gpu": 0}],
            },
            "limits": {"gap": 1.5, "time_s": "10"},
            "seed": 1.5,
            "colour": "red",
        }
        response = client.post("/v1/plans", json=body)
        assert response.status_code == 422
        assert set(codes(response)) == {
            "/trace",
            "/topology/gpus_per_node",
            "/topology/nodes",
            "/constraints/load_cap",
            "/constraints/load_quantile",
            "/constraints/load_groups",
            "/constraints/pins/0/expert",
            "/limits/gap",
            "/limits/time_s",
            "/seed",
            "/colour",
        }
        assert all(item["remedy"] for item in response.json()["errors"])

    def test_meaning_at_once(self, client: TestClient) -> None:
        """So is every fault of what the fields mean."""
        body = {
            "trace": UNKNOWN_TRACE,
            "topology": "4by8",
            "solver": "auto",
            "options": {"colour": "red"},
            "limits": {"time_s": 1e6},
            "start": UNKNOWN_PLAN,
        }
        assert codes(client.post("/v1/plans", json=body)) == {
            "/topology": "topology_syntax",
            "/limits/time_s": "limit_range",
            "/options/colour": "unknown_option",
            "/trace": "unknown_trace",
            "/start": "unknown_plan",
        }

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"slots_per_gpu": 7}, {"/slots_per_gpu": "more_experts_than_slots"}),
            (
                {"constraints": {"pins": [{"expert": 40, "gpu": 9}]}},
                {"/constraints/pins/0/expert": "expert_range", "/constraints/pins/0/gpu": "gpu_range"},
            ),
            (
                {"constraints": {"forbidden": [{"expert": 1, "gpu": 0, "layer_id": 0}]}},
                {"/constraints/forbidden/0/layer_id": "layer_unknown"},
            ),
            (
                {"objective": {"execution": "dispatch", "ownership": "measured"}},
                {"/objective/ownership": "no_source_rank"},
            ),
            ({"objective": {"dedup": "node"}}, {"/objective/dedup": "without_effect"}),
            ({"objective": {"replica_policy": "same_gpu"}}, {"/objective/replica_policy": "replica_policy"}),
            ({"solver": "anealing"}, {"/solver": "unknown_solver"}),
        ],
    )
    def test_against_the_trace(
        self, client: TestClient, body: dict[str, Any], change: dict[str, Any], expected: dict[str, str]
    ) -> None:
        """What does not fit the trace is refused before it is queued."""
        response = client.post("/v1/plans", json={**body, **change})
        assert response.status_code == 422
        assert codes(response) == expected

    def test_start_must_fit(self, client: TestClient, body: dict[str, Any], plan: dict[str, Any]) -> None:
        """A start plan of another shape is refused before it is queued."""
        response = client.post("/v1/plans", json={**body, "slots_per_gpu": 9, "start": plan["id"]})
        assert codes(response) == {"/start/slots_per_gpu": "start_size"}

    def test_counts_need_no_affinity(self, client: TestClient) -> None:
        """A load matrix can't be planned for an objective that needs tokens."""
        file = io.BytesIO()
        np.save(file, np.random.default_rng(0).random((3, 8)))
        trace_id = upload(client, file.getvalue())
        asked = {"trace": trace_id, "topology": "1x2", "objective": {"execution": "context_coherent"}}
        response = client.post("/v1/plans", json=asked)
        assert codes(response) == {"/objective/execution": "counts_only"}

    def test_too_large_a_job(self, client: TestClient, body: dict[str, Any]) -> None:
        """A job that needs more memory than the service grants is refused before any array is made."""
        assert codes(client.post("/v1/plans", json={**body, "topology": "512x8"})) == {"/topology": "job_too_large"}


class TestEvaluations:
    def test_recorded_topology_must_be_the_plans(self, client: TestClient, plan: dict[str, Any], trace_id: str) -> None:
        """An inline plan whose nodes contradict its provenance is refused, unless a topology is named."""
        other = {**plan["plan"], "gpus_per_node": [1, plan["plan"]["num_gpus"] - 1]}
        body = {"plan": other, "trace": trace_id}
        refused = client.post("/v1/evaluations", json=body)
        assert refused.status_code == 422
        assert "nodes_differ" in refused.text
        named = client.post("/v1/evaluations", json={**body, "topology": f"1x{other['num_gpus']}"})
        assert named.status_code == 200

    def test_topology_with_its_own_matrices(self, client: TestClient, trace_id: str) -> None:
        """A plan that a library user made on arbitrary costs is evaluated on the topology that it records."""
        costs = [[0.0, 1.0, 2.0, 3.0], [1.5, 0.0, 1.0, 2.0], [2.0, 1.0, 0.0, 1.0], [3.0, 2.0, 1.0, 0.0]]
        topology = {"gpus_per_node": [4], "rank_cost_matrix": costs, "latency_us": costs, "host_of_gpu": [0, 0, 1, 1]}
        body = {"trace": trace_id, "topology": topology, "solver": "contiguous"}
        made = client.post("/v1/plans", json=body, headers={"Prefer": "wait=30"}).json()
        found = client.post("/v1/evaluations", json={"plan": made["plan"], "trace": trace_id})
        assert found.status_code == 200, found.text

    def test_by_id_and_inline(self, client: TestClient, plan: dict[str, Any], trace_id: str) -> None:
        """A plan by id and the same plan inline give the same figures, as it was made for."""
        by_id = client.post("/v1/evaluations", json={"plan": plan["id"], "trace": trace_id})
        inline = client.post("/v1/evaluations", json={"plan": plan["plan"], "trace": trace_id})
        assert by_id.status_code == 200, by_id.text
        assert by_id.json() == inline.json()
        assert by_id.json()["execution"] == "context_coherent"
        assert by_id.json()["tokens"] == 2000
        parts = [plan["summary"]["plans"]["plan"][part] for part in ("fit", "held_out")]
        mean = sum(part["cross_gpu_fraction"] * part["tokens"] for part in parts) / 2000
        assert by_id.json()["cross_gpu_fraction"] == pytest.approx(mean)

    def test_sample_of_a_profile(self, client: TestClient, tmp_path: Path) -> None:
        """An evaluation on a profile says that its sample stands for all tokens."""
        ids = np.random.default_rng(3).permuted(np.tile(np.arange(8), (500, 3, 1)), axis=2)[:, :, :2]
        Profile.of(Trace.of(ids, num_experts=8)).save(tmp_path / "profile.npz")
        trace_id = upload(client, (tmp_path / "profile.npz").read_bytes())
        body = {"trace": trace_id, "topology": "1x2", "solver": "contiguous"}
        plan_id = client.post("/v1/plans", json=body, headers=WAIT).json()["id"]
        notes = client.post("/v1/evaluations", json={"plan": plan_id, "trace": trace_id}).json()["notes"]
        assert any("sample" in note for note in notes)

    def test_other_engine(self, client: TestClient, plan: dict[str, Any], trace_id: str) -> None:
        """Execution and topology can be chosen for the evaluation alone."""
        body = {"plan": plan["id"], "trace": trace_id, "execution": "dispatch", "dedup": "node", "topology": "2x2"}
        content = client.post("/v1/evaluations", json=body).json()
        assert (content["execution"], content["dedup"], content["replica_policy"]) == ("dispatch", "node", "same_node")
        assert 0 < content["remote_nodes"] < content["remote_gpus"]

    def test_activated_experts(self, client: TestClient, plan: dict[str, Any], trace_id: str) -> None:
        """Counted over batches as asked, else as the plan was made for; under dispatch only."""
        weighed = {"execution": "dispatch", "activated_weight": 0.5, "decode_batch": 16}
        body = {"trace": trace_id, "topology": "2x2", "limits": {"work": 2000}, "solver": "annealing"}
        body["objective"] = weighed
        made = client.post("/v1/plans", json=body, headers=WAIT).json()

        def counted(asked: Any, **more: Any) -> Any:
            return client.post("/v1/evaluations", json={"plan": asked, "trace": trace_id, **more}).json()

        by_id = counted(made["id"])["activated_experts"]
        assert 0 < by_id == counted(made["plan"])["activated_experts"]
        assert by_id == counted(made["id"], decode_batch=16)["activated_experts"]
        assert by_id < counted(made["id"], decode_batch=256)["activated_experts"]
        assert counted(made["id"], execution="context_coherent")["activated_experts"] is None
        replayed = counted(made["id"], engine="vllm")
        assert (replayed["execution"], replayed["dedup"], replayed["replica_policy"]) == ("dispatch", "node", "fair")
        assert counted(plan["id"])["activated_experts"] is None
        refused = client.post("/v1/evaluations", json={"plan": plan["id"], "trace": trace_id, "decode_batch": 16})
        assert codes(refused) == {"/decode_batch": "activated_execution"}

    def test_violations(self, client: TestClient, plan: dict[str, Any], trace_id: str) -> None:
        """Plans and traces that are unknown or don't fit together are refused with pointers."""
        unknown = client.post("/v1/evaluations", json={"plan": UNKNOWN_PLAN, "trace": UNKNOWN_TRACE})
        assert codes(unknown) == {"/plan": "unknown_plan", "/trace": "unknown_trace"}
        broken = {**plan["plan"], "physical_to_logical_map": [[0] * 32] * 6}
        assert "/plan/physical_to_logical_map/0" in codes(
            client.post("/v1/evaluations", json={"plan": broken, "trace": trace_id})
        )
        unused = client.post("/v1/evaluations", json={"plan": plan["id"], "trace": trace_id, "hold_out": 0.5})
        assert codes(unused) == {"/hold_out": "hold_out_unused"}
        nothing = {"plan": plan["id"], "trace": trace_id, "part": "held_out", "hold_out": 0}
        assert codes(client.post("/v1/evaluations", json=nothing)) == {"/hold_out": "hold_out_empty"}
        other = client.post("/v1/evaluations", json={"plan": plan["id"], "trace": trace_id, "topology": "1x8"})
        assert codes(other) == {"/topology": "gpus_differ"}


class TestCatalogue:
    def test_solvers(self, client: TestClient) -> None:
        """Every solver comes with the JSON Schema of its options, `auto` first."""
        items = client.get("/v1/solvers").json()["items"]
        assert items[0]["name"] == "auto"
        assert all(item["options"]["type"] == "object" for item in items)
        annealing = next(item for item in items if item["name"] == "annealing")
        assert annealing["options"]["additionalProperties"] is False
        assert annealing["options"]["properties"]

    def test_engines(self, client: TestClient) -> None:
        """Every engine comes with how tokens travel there, the names that a request may have, and its file."""
        items = client.get("/v1/engines").json()["items"]
        assert [item["name"] for item in items] == list(ENGINES)
        for item in items:
            engine = ENGINES[item["name"]]
            for name in ("title", "version", "execution", "dedup", "default_layout", "export", "page"):
                assert item[name] == getattr(engine, name), name
            assert item["notes"] == list(engine.notes)
            assert {each["name"]: each["replica_policy"] for each in item["algorithms"]} == engine.algorithms
            spelled = [f"{item['name']}:{each['name']}" for each in item["algorithms"]] or [item["name"]]
            assert str(engine_of(item["name"])) == spelled[0], "the first is the default"
            assert [str(engine_of(text)) for text in spelled] == spelled
            assert item["export"] is None or item["export"] in {export.name for export in EXPORTS}

    def test_topologies(self, client: TestClient) -> None:
        """Presets are listed with their links."""
        items = client.get("/v1/topologies").json()["presets"]
        assert {item["name"] for item in items} >= {"hgx_h100", "gb200_nvl72"}

    def test_problem_types_can_be_read(self, client: TestClient) -> None:
        """The type of a problem leads to a text."""
        kind = client.get("/v1/plans/none").json()["type"]
        response = client.get(kind)
        assert response.status_code == 200
        assert response.text.startswith("Not found (404)")
        assert client.get("/problems/none").status_code == 404

    def test_operations(self, client: TestClient) -> None:
        """The service says that it is up and ready, and counts what it does."""
        assert client.get("/healthz").text == "ok\n"
        assert client.get("/readyz").text == "ok\n"
        client.get("/v1/plans/none")
        figures = client.get("/metrics").text
        assert 'moe_placement_requests_total{method="GET",route="/v1/plans/{plan_id}",status="404"}' in figures
        assert 'moe_placement_plans{status="queued"}' in figures

    def test_openapi(self, client: TestClient) -> None:
        """The OpenAPI document is served and complete; pages that would load scripts from elsewhere are not."""
        content = client.get("/openapi.json").json()
        assert "HTTPValidationError" not in content["components"]["schemas"]
        assert set(content["paths"]["/v1/plans"]) == {"get", "post"}
        assert client.get("/docs").status_code == 404

    def test_head(self, client: TestClient, trace_id: str) -> None:
        """HEAD answers with the head of GET and nothing else."""
        path = f"/v1/traces/{trace_id}"
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert [head.headers[name] for name in ("etag", "content-length")] == [
            get.headers[name] for name in ("etag", "content-length")
        ]
        assert client.head("/v1/evaluations").status_code == 405

    def test_invented_methods_are_one_series(self, client: TestClient) -> None:
        """A client can't fill the figures with methods of its own."""
        assert client.request("BREW", "/v1/plans").status_code == 405
        figures = client.get("/metrics").text
        assert 'method="other"' in figures
        assert "BREW" not in figures

    def test_request_id(self, client: TestClient) -> None:
        """A request id is taken over if it is a decent one, and made otherwise."""
        assert client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
        made = client.get("/healthz", headers={"X-Request-ID": 'a"b c'}).headers["x-request-id"]
        assert made.isalnum()
