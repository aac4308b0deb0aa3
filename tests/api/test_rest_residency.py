"""``POST /v1/residency``: the same words as at other doors, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from placement.residency import Tier
from solvers import simulate_residency
from tests.builders.service import upload
from traces import Trace, save
from traces.synthetic import Synthetic, generate

BODY: dict[str, Any] = {"resident": 0.5, "batch_tokens": 2, "budget": "equal", "expert_bytes": 1_000_000}
TIERS = [{"name": "host", "gb_s": 50, "share": 0.75}, {"name": "disk", "gb_s": 6}]


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Return a small trace."""
    return generate(Synthetic(num_layers=2, num_experts=8, top_k=2, num_tokens=512, skew=0.6))


@pytest.fixture(scope="module")
def trace_id(client: TestClient, trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Upload it."""
    path = tmp_path_factory.mktemp("residency") / "trace.npz"
    save(trace, path)
    return upload(client, path.read_bytes(), name="trace.npz")


def test_the_same_words_give_the_same_figures(client: TestClient, trace: Trace, trace_id: str) -> None:
    """REST and Python agree, but for the notes on where the trace comes from."""
    done = client.post("/v1/residency", json=BODY | {"trace": trace_id, "tiers": TIERS})
    assert done.status_code == 200, done.text
    tiers = (Tier.parse("host:50:.75"), Tier.parse("disk:6"))
    here = simulate_residency(trace, tiers=tiers, **BODY).as_dict()
    assert done.json() | {"notes": []} == here | {"notes": []}


@pytest.mark.parametrize(
    ("said", "pointer", "code"),
    [
        ({"model": "/etc/passwd", "expert_bytes": None}, "/model", "unknown_model"),
        ({"machine": "h2000:1x1", "model": "olmoe", "expert_bytes": None}, "/machine", "unknown_gpu"),
        ({"machine": "h200:1x2", "model": "olmoe", "expert_bytes": None}, "/machine", "several_gpus"),
        ({"tiers": [{"name": "host", "gb_s": -1}]}, "/tiers/0/gb_s", None),
        ({"tiers": TIERS[:1]}, "/tiers", "tiers_incomplete"),
        ({"cold": "compute"}, "/machine", "field_missing"),
        ({"trace": "sha256:" + "0" * 64}, "/trace", "unknown_trace"),
        ({"residents": 3}, "/residents", None),
    ],
)
def test_what_is_refused(
    client: TestClient, trace_id: str, said: dict[str, Any], pointer: str, code: str | None
) -> None:
    """Each with the field that is at fault; a model is a name and never a path."""
    done = client.post("/v1/residency", json=BODY | {"trace": trace_id} | said)
    assert done.status_code == 422, done.text
    told = done.json()["errors"][0]
    assert told["pointer"].endswith(pointer)
    assert code is None or told["code"] == code
