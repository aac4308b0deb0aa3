"""``POST /v1/replans``: the same words as at other doors, with plans that can be sent on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from placement import Plan
from solvers import Limits, Study, replan
from tests.builders.service import npz, upload
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


def test_the_same_words_give_the_same_plan(
    client: TestClient, traces: list[Trace], running: Plan, trace_id: str
) -> None:
    """REST and Python agree; the last step's plan is the one to change to."""
    done = client.post("/v1/replans", json=BODY | {"trace": trace_id, "running": running.as_dict()})
    assert done.status_code == 200, done.text
    found = done.json()
    here = replan(running, traces[1], **BODY, limits=Limits(), workers=1)
    assert (found["verdict"], found["moved_experts"]) == (here.verdict, here.moves.experts)
    assert found["plan"]["physical_to_logical_map"] == here.plan.physical_to_logical_map.tolist()
    assert found["steps"][-1]["plan"]["physical_to_logical_map"] == found["plan"]["physical_to_logical_map"]
    assert Plan.from_dict(found["plan"]).provenance["predecessor"] == here.plan.provenance["predecessor"]


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
