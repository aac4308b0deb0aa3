"""The smallest traces: one layer, one expert of each token, two tokens. Every look at them is answered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from placement.exports import EXPORTS
from tests.builders.service import npz, npz_bytes, upload

SMALLEST = {
    "one layer": npz_bytes(tokens=100, layers=1, experts=8),
    "two tokens": npz(topk_ids=np.array([[[0], [1]], [[1], [0]]]), num_experts=np.array(2)),
    "one layer of counts": b"layer,expert,count\n" + b"".join(b"3,%d,5\n" % expert for expert in range(8)),
}


@pytest.mark.parametrize("execution", ["context_coherent", "dispatch"])
@pytest.mark.parametrize("name", SMALLEST)
def test_every_look_is_answered(client: TestClient, name: str, execution: str) -> None:
    """Score, findings, affinity, exports and replay: an answer or a refusal with a reason, and no fault."""
    trace = upload(client, SMALLEST[name])
    objective = {"execution": execution} | ({"dedup": "none"} if execution == "dispatch" else {})
    body = {"trace": trace, "topology": "1x2", "solver": "contiguous", "objective": objective}
    answer = client.post("/v1/plans", json=body, headers={"Prefer": "wait=100"})
    if name == "one layer of counts" and execution == "context_coherent":
        assert answer.status_code == 422
        return
    plan: dict[str, Any] = answer.json()
    assert plan["status"] == "succeeded", plan
    place = f"/v1/plans/{plan['id']}"
    score = client.get(f"{place}/score")
    assert score.status_code == 200, score.text
    if name == "one layer" and execution == "context_coherent":
        assert score.json()["traffic"] is None, "of one layer nothing goes on to a next one"
    for path in (f"{place}/events", f"/v1/traces/{trace}/affinity", f"/v1/traces/{trace}/findings"):
        assert client.get(path).status_code < 500, path
    for export in EXPORTS:
        assert client.get(f"{place}/exports/{export.name}?force=true").status_code < 500, export.name
    replayed = client.post("/v1/evaluations", json={"plan": plan["id"], "trace": trace})
    assert replayed.status_code == 200, replayed.text
