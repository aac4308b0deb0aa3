"""``/v1/mixtures``: one plan for several domains as a job, with the figures of the library."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from api.client import Client
from api.client.connection import Connection
from api.http.oidc import LOCAL
from api.resources.mixtures.body import MixtureBody
from api.resources.mixtures.mixing import check_mixture
from placement import Plan
from solvers import Limits, MixtureRequest, mixture
from tests.builders.service import codes, npz, services_of, upload
from traces import InputError, Trace
from traces.synthetic import Synthetic, generate

BODY: dict[str, Any] = {
    "topology": "1x2",
    "engine": "sglang",
    "redundant_experts": 2,
    "rounds": 2,
    "solver": "annealing",
}
SIZES: dict[str, Any] = {"num_layers": 2, "num_experts": 8, "top_k": 2, "num_tokens": 1024}
WAIT = {"Prefer": "wait=200"}


@pytest.fixture(scope="module")
def domains() -> dict[str, Trace]:
    """Return two domains."""
    return {name: generate(Synthetic(seed=seed, **SIZES)) for seed, name in enumerate(("code", "chat"))}


@pytest.fixture(scope="module")
def traces(client: TestClient, domains: dict[str, Trace]) -> list[str]:
    """Upload them."""
    return [upload(client, content(trace), name=f"{name}.npz") for name, trace in domains.items()]


def content(trace: Trace) -> bytes:
    """Return a trace as a file."""
    batches = list(trace.batches())
    own = {
        name: np.concatenate([np.asarray(getattr(each, name)) for each in batches]) for name in ("topk_ids", "seq_id")
    }
    return npz(**own, num_experts=8)


def test_the_same_words_give_the_same_matrix(client: TestClient, domains: dict[str, Trace], traces: list[str]) -> None:
    """REST and Python agree; a trace that is needed stays."""
    asked = {"traces": traces, "weights": [2, 1], "over": "quantile", "quantile": 0.5, "limits": {"work": 500}}
    queued = client.post("/v1/mixtures", json=BODY | asked).json()
    if client.get(f"/v1/mixtures/{queued['id']}").json()["status"] in ("queued", "running"):
        assert client.delete(f"/v1/traces/{traces[1]}").json()["type"] == "/problems/trace-in-use"
    done = client.get(f"/v1/mixtures/{queued['id']}", headers=WAIT).json()
    assert done["status"] == "succeeded", done
    own: dict[str, Any] = {"weights": (2.0, 1.0), "over": "quantile", "quantile": 0.5, "limits": Limits(work=500)}
    here = mixture(domains, workers=1, **BODY, **own)
    assert done["mixture"] == here.as_dict()
    assert done["plan"]["physical_to_logical_map"] == here.plan.physical_to_logical_map.tolist()
    assert Plan.from_dict(client.get(f"/v1/mixtures/{done['id']}/plan").json()) == Plan.from_dict(done["plan"])
    assert done["traces"] == traces
    listed = client.get("/v1/mixtures").json()["items"]
    assert (listed[0]["id"], "mixture" in listed[0]) == (done["id"], False)


def test_one_trace_of_several_sources(client: TestClient) -> None:
    """It is split by its column; its domains are called by number."""
    parts = [np.load(io.BytesIO(content(generate(Synthetic(seed=seed, **SIZES))))) for seed in (3, 4)]
    ids = np.concatenate([part["topk_ids"] for part in parts])
    sequences = np.concatenate([part["seq_id"] + 1000 * number for number, part in enumerate(parts)])
    both = npz(topk_ids=ids, seq_id=sequences, data_source=np.repeat([5, 7], 1024), num_experts=8)
    asked = BODY | {"traces": [upload(client, both)], "limits": {"work": 200}, "over": "weighted"}
    done = client.post("/v1/mixtures", json=asked, headers=WAIT).json()
    assert done["status"] == "succeeded", done
    assert done["mixture"]["domains"] == ["source 5", "source 7"]
    assert len(done["mixture"]["rounds"]) == 1


def test_what_is_refused(client: TestClient, traces: list[str], trace_id: str) -> None:
    """All that is wrong at once, without reading a trace; more time than the service has is split, or refused."""

    def refused(**said: Any) -> dict[str, str]:
        return codes(client.post("/v1/mixtures", json=BODY | said))

    none = "sha256:" + "0" * 64
    assert refused(traces=[*traces, none], quantile=0.5, machine="abacus:1x2", solver="nobody") == {
        "/traces/2": "unknown_trace",
        "/quantile": "without_effect",
        "/model": "machine_and_model",
        "/machine": "unknown_gpu",
        "/solver": "unknown_solver",
    }
    counts = upload(client, b"[[1, 2, 3, 4, 5, 6, 7, 8]]", name="counts.json")
    assert refused(traces=[none, counts]) == {"/traces/0": "unknown_trace", "/traces/1": "counts_only"}
    assert refused(traces=[none, traces[0]]) == {"/traces/0": "unknown_trace"}
    assert refused(traces=[traces[0]]) == {"/traces": "no_sources"}
    assert refused(traces=[*traces, traces[0], trace_id], weights=[1, 2]) == {
        "/traces/2": "trace_twice",
        "/traces/3": "domains_differ",
        "/weights": "weights_number",
    }
    limit = services_of(client).settings.max_time_limit_s
    assert refused(traces=traces, limits={"time_s": limit / 2}) == {"/limits/time_s": "limit_range"}


@pytest.mark.parametrize("limits", [{"work": 500}, {"time_s": None, "work": 500}, {}])
def test_every_search_has_a_clock(client: TestClient, traces: list[str], limits: dict[str, Any]) -> None:
    """Of work alone too, and all of them together leave time to replay tokens."""
    services = services_of(client)
    body = MixtureBody(**BODY | {"traces": traces, "limits": limits})
    asked = check_mixture(body, services.settings, services.store.of(LOCAL)).request
    searches = 2 + 2 + 1  # rounds, domains, all of them
    assert 0 < asked["limits"]["time_s"] <= services.settings.max_time_limit_s / 2 / searches


def test_searches_for_pools_take_time_too() -> None:
    """Of three domains: four groupings, of nine groups."""
    known: dict[str, Any] = {"topology": "1x4", "machine": "h200:1x4", "model": "deepseek-v3", "rounds": 1}
    assert MixtureRequest(**known).searches(3) == 5
    assert MixtureRequest(**known, pools=True).searches(3) == 14


def test_an_interrupt_is_seen_where_the_service_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cancelling fails with does not take its place."""

    def send(_: object, kind: type, method: str, place: str, *args: Any, **more: Any) -> Any:
        if place.endswith("/cancel"):
            raise ConnectionError
        if method == "GET":
            raise KeyboardInterrupt
        return SimpleNamespace(id="mixture_1", status="queued")

    monkeypatch.setattr(Connection, "send", send)
    with Client("http://127.0.0.1:9") as gone, pytest.raises(KeyboardInterrupt):
        gone.mixture(MixtureBody(**BODY | {"traces": ["sha256:" + "0" * 64]}))


def test_the_memory_of_all_domains_is_held_against_the_limit(client: TestClient, traces: list[str]) -> None:
    """The refusal names the service's own limit."""
    services = services_of(client)
    body = MixtureBody(**BODY | {"traces": traces, "topology": "512x8"})
    tight = services.settings.model_copy(update={"max_job_bytes": 2_000_000_000})
    with pytest.raises(InputError) as caught:
        check_mixture(body, tight, services.store.of(LOCAL))
    (violation,) = caught.value.violations
    assert violation.code == "job_too_large"
    assert "3 times" in violation.detail
    assert "up to 2.0 GB" in violation.remedy
