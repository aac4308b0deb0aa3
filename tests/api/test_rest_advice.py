"""``POST /v1/advice``: the same words as at other doors, and no file of the server's machine by the name of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from solvers import Limits, advise
from tests.builders.service import upload
from traces import Trace, save
from traces.synthetic import Synthetic, generate

BODY: dict[str, Any] = {
    "machine": "h200:2x2",
    "model": "qwen3-30b-a3b",
    "engine": "sglang",
    "solver": "load_balance",
    "tokens_per_gpu": 128,
    "alternatives": False,
    "limits": {"time_s": 5},
}
PARAMS = Synthetic(
    num_layers=2, num_experts=128, top_k=8, num_tokens=2048, skew=0.8, affinity=0, tokens_per_sequence=64
)


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Return a skewed trace."""
    return generate(PARAMS)


@pytest.fixture(scope="module")
def trace_id(client: TestClient, trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Upload it."""
    path = tmp_path_factory.mktemp("advice") / "trace.npz"
    save(trace, path)
    return upload(client, path.read_bytes(), name="trace.npz")


def test_the_same_words_give_the_same_advice(client: TestClient, trace: Trace, trace_id: str) -> None:
    """REST and Python agree to the last digit."""
    done = client.post("/v1/advice", json=BODY | {"trace": trace_id})
    assert done.status_code == 200, done.text
    here = advise(trace, **(BODY | {"limits": Limits(time_s=5)}), workers=1).as_dict()
    found = done.json()
    assert found["verdict"] == here["verdict"]
    np.testing.assert_allclose(found["gain_interval"], here["gain_interval"], rtol=1e-12)


def test_both_phases(client: TestClient, trace_id: str) -> None:
    """Both phases are answered in a form of their own."""
    asked = {name: value for name, value in BODY.items() if name != "tokens_per_gpu"}
    done = client.post("/v1/advice", json=asked | {"trace": trace_id, "phase": "both", "tokens_per_gpu": 128})
    assert done.status_code == 200, done.text
    assert set(done.json()["phases"]) == {"prefill", "decode"}


@pytest.mark.parametrize(
    ("said", "pointer", "code"),
    [
        ({"model": "/etc/passwd"}, "/model", "unknown_model"),
        ({"machine": "h2000:1x4"}, "/machine", "unknown_gpu"),
        ({"backend": "pigeons"}, "/backend", "unknown_backend"),
        ({"weight_dtype": "fp7"}, "/weight_dtype", "unknown_choice"),
        ({"limits": {"time_s": 3600}}, "/limits/time_s", "limit_range"),
        ({"plan": "plan_" + "0" * 32}, "/plan", "unknown_plan"),
        ({"tokens": 3}, "/tokens", None),
    ],
)
def test_what_is_refused(
    client: TestClient, trace_id: str, said: dict[str, Any], pointer: str, code: str | None
) -> None:
    """Each with the field that is at fault; a model is a name and never a path."""
    done = client.post("/v1/advice", json=BODY | {"trace": trace_id} | said)
    assert done.status_code == 422, done.text
    told = done.json()["errors"][0]
    assert told["pointer"].endswith(pointer)
    assert code is None or told["code"] == code
