"""Requests of every kind for a real trace: what is accepted can be run, what is not says where it is wrong."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from solvers import names

PIN = st.fixed_dictionaries(
    {"expert": st.integers(0, 33), "gpu": st.integers(0, 5)}, optional={"layer_id": st.none() | st.integers(0, 7)}
)
GROUP = st.fixed_dictionaries({"experts": st.lists(st.integers(0, 33), min_size=1, max_size=10)})
OBJECTIVES = st.fixed_dictionaries(
    {},
    optional={
        "execution": st.sampled_from([None, "context_coherent", "dispatch"]),
        "dedup": st.sampled_from([None, "none", "gpu", "node"]),
        "ownership": st.sampled_from([None, "token", "sequence", "measured"]),
        "replica_policy": st.sampled_from([None, "fair", "same_gpu", "same_node"]),
    },
)
CONSTRAINTS = st.fixed_dictionaries(
    {},
    optional={
        "load_cap": st.none() | st.floats(1, 3),
        "layer_load_caps": st.lists(
            st.fixed_dictionaries({"layer_id": st.integers(0, 8), "load_cap": st.floats(1, 3)}), max_size=2
        ),
        "load_quantile": st.none() | st.floats(0.5, 0.99),
        "load_groups": st.sampled_from([None, "windows", "sequences"]),
        "extra_replicas": st.none() | st.integers(0, 40),
        "extra_bytes": st.none() | st.integers(0, 40_000),
        "pins": st.lists(PIN, max_size=3),
        "forbidden": st.lists(PIN, max_size=3),
        "groups": st.lists(GROUP, max_size=2),
        "survive": st.none()
        | st.fixed_dictionaries(
            {"unit": st.sampled_from(["gpus", "hosts", "nodes", "links"])},
            optional={"failures": st.integers(1, 5), "lost": st.none() | st.integers(0, 9)},
        ),
    },
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "slots_per_gpu": st.none() | st.integers(1, 40),
    "objective": OBJECTIVES,
    "constraints": CONSTRAINTS,
    "expert_bytes": st.none() | st.integers(1, 2_000),
    "solver": st.sampled_from([name for name in names() if name not in ("auto", "exflow")]),
    "hold_out": st.sampled_from([None, 0.0]) | st.floats(0.1, 0.9),
    "seed": st.integers(0, (1 << 63) - 1),
}
TOPOLOGIES = st.sampled_from(
    ["1x1", "1x4", "2x2", "3+1", "1x5", "8x8", "hgx_h100:1", {"gpus_per_node": [1, 3], "slots": [8, 8, 8, 20]}]
)


@settings(max_examples=50, derandomize=True, suppress_health_check=list(HealthCheck))
@given(topology=TOPOLOGIES, fields=st.fixed_dictionaries({}, optional=FIELDS))
def test_accepted_requests_run(client: TestClient, trace_id: str, topology: Any, fields: dict[str, Any]) -> None:
    """A request that was accepted ends with a plan; one that was not gets pointers into its body."""
    body = {"trace": trace_id, "topology": topology, "limits": {"work": 50}, **fields}
    response = client.post("/v1/plans", json=body, headers={"Prefer": "wait=240"})
    assert response.status_code in (200, 422), response.text
    if response.status_code == 422:
        names_of_fields = {item["pointer"].split("/")[1] for item in response.json()["errors"]}
        assert names_of_fields <= {"topology", *FIELDS}, response.text
        return
    plan = response.json()
    if plan["status"] == "failed":
        # Only the search can find out that constraints leave no plan, or how large a solver's model becomes.
        error = plan["error"]
        assert error["type"] == "/problems/no-plan" or "above max_booleans" in error["detail"], error
    else:
        assert plan["status"] == "succeeded"
        assert plan["summary"]["plans"]["plan"]["score"] == plan["score"]


def test_time_is_minimised_where_machine_and_model_are_named(client: TestClient, trace_id: str) -> None:
    """The topology follows from the machine, score and bound are milliseconds; a model is a name and never a path."""
    asked = {"machine": "h200:1x4", "model": "gpt-oss-20b", "tokens_per_gpu": 64}
    body: dict[str, Any] = {"trace": trace_id, "time": asked, "solver": "load_balance", "limits": {"work": 50}}
    found = client.post("/v1/plans", json=body, headers={"Prefer": "wait=240"}).json()
    assert found["status"] == "succeeded", found
    plan = client.get(f"/v1/plans/{found['id']}/plan").json()
    assert plan["provenance"]["time"]["unit"] == "ms per forward pass"
    assert 0 < found["bound"] <= found["score"] == found["summary"]["plans"]["plan"]["step_ms"]["fit"]
    for wrong, code in (
        (asked | {"model": "/etc/model.json"}, "unknown_model"),
        (asked | {"model": "olmoe"}, "experts_differ"),
        ({"machine": "h200:1x4"}, "field_missing"),
        ({}, "topology_missing"),
    ):
        refused = client.post("/v1/plans/validate", json=body | {"time": wrong})
        assert refused.status_code == 422, refused.text
        assert code in {error["code"] for error in refused.json()["errors"]}, refused.text
