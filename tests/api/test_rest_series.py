"""``/v1/series``: traces in time, with drift against sampling noise, and what keeps a trace from being deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from api.settings.settings import Settings
from api.store.series import packed, unpacked
from tests.builders.series import domain_trace
from tests.builders.service import codes, local_client, npz, store_in, upload
from traces import Trace, drift_between, series_of_each

DOMAINS = 2


def content_of(trace: Trace) -> bytes:
    """Return a trace as a file."""
    batches = list(trace.batches())
    ids = np.concatenate([batch.topk_ids for batch in batches])
    sequences = np.concatenate([np.asarray(batch.seq_id) for batch in batches])
    return npz(topk_ids=ids, num_experts=trace.num_experts, seq_id=sequences)


@pytest.fixture(scope="module")
def recorded() -> list[Trace]:
    """Return windows: two of one domain, and one of another."""
    whole = domain_trace(0, DOMAINS, 24)
    batch = next(iter(whole.batches()))
    number, source = np.asarray(batch.seq_id), np.asarray(batch.data_source)
    first, second = (number <= 12), (source == 0) & (number > 12)
    return [
        Trace.of(batch.topk_ids[chosen], num_experts=8, seq_id=number[chosen])
        for chosen in (first, second, source == 1)
    ]


@pytest.fixture(scope="module")
def trace_ids(client: TestClient, recorded: list[Trace]) -> list[str]:
    """Upload them."""
    return [upload(client, content_of(trace), name=f"w{number}.npz") for number, trace in enumerate(recorded)]


def begun(client: TestClient, **body: Any) -> str:
    """Begin a series and return its address."""
    made = client.post("/v1/series", json=body)
    assert made.status_code == 201, made.text
    return str(made.headers["location"])


def add(client: TestClient, place: str, trace: str, **body: Any) -> Any:
    """Add a window."""
    return client.post(f"{place}/windows", json={"trace": trace} | body)


def test_windows_tell_their_drift(client: TestClient, recorded: list[Trace], trace_ids: list[str]) -> None:
    """The figures are those of the library; another domain is drift, the same one is not."""
    place = begun(client, name="prod", tags=["a"])
    for trace in trace_ids:
        added = add(client, place, trace)
        assert added.status_code == 201, added.text
    found = client.get(place).json()
    assert [window["trace"] for window in found["windows"]] == trace_ids
    assert (found["kind"], found["num_experts"], found["num_windows"]) == ("trace", 8, 3)
    series = series_of_each(recorded)
    for number in (1, 2):
        here = drift_between(series.windows[number - 1 : number], series.windows[number : number + 1]).as_dict()
        assert found["windows"][number]["drift"] == here
    assert [window["drift"] and window["drift"]["drifted"] for window in found["windows"]] == [None, False, True]
    listed = client.get("/v1/series", params={"tag": "a"}).json()["items"]
    assert [item["num_windows"] for item in listed] == [3]
    figures = client.get("/metrics").text
    assert f'moe_placement_series_drifted{{series="{found["id"]}"}} 1.0' in figures
    assert f'moe_placement_series_windows{{series="{found["id"]}"}} 3.0' in figures
    loads = client.get(f"{place}/loads", params={"layer": 1, "last": 2}).json()
    assert [window["number"] for window in loads["windows"]] == [1, 2]
    np.testing.assert_allclose(loads["windows"][1]["shares"], series.windows[2].shares[1])


def test_a_trace_of_a_series_stays(client: TestClient, recorded: list[Trace]) -> None:
    """It is not deleted before its series, which says so; the series takes no trace with it."""
    trace = upload(client, content_of(recorded[0].where(lambda batch: np.asarray(batch.seq_id) < 9, "fewer")))
    place = begun(client)
    assert add(client, place, trace).status_code == 201
    refused = client.delete(f"/v1/traces/{trace}")
    assert refused.status_code == 409
    assert refused.json()["type"] == "/problems/trace-in-use"
    assert place.rpartition("/")[2] in refused.json()["detail"]
    assert client.delete(place).status_code == 204
    assert client.get(place).status_code == 404
    assert client.delete(f"/v1/traces/{trace}").status_code == 204


def test_what_is_no_window(client: TestClient, trace_ids: list[str], trace_id: str) -> None:
    """Another model, the same trace again, times out of order or mixed: all at once, and nothing is kept."""
    place = begun(client)
    assert add(client, place, trace_ids[0], time=5).status_code == 201
    again = add(client, place, trace_ids[0], time=4)
    assert again.status_code == 422
    assert codes(again) == {"/trace": "trace_twice", "/time": "time_order"}
    other = add(client, place, trace_id)
    assert {item["code"] for item in other.json()["errors"]} == {
        "layers_differ",
        "num_experts_differ",
        "top_k_differ",
        "times_mixed",
    }
    assert codes(add(client, place, "sha256:" + "0" * 64, time=6)) == {"/trace": "unknown_trace"}
    assert client.get(place).json()["num_windows"] == 1
    assert client.get(f"{begun(client)}/loads").status_code == 422


def test_single_dumps_are_held_against_all_before(client: TestClient) -> None:
    """With nothing to exchange, drift is told from the fourth window on, by prediction."""
    rng = np.random.default_rng(0)
    base = np.array([[1000, 500, 250, 125], [125, 250, 500, 1000]])
    place = begun(client, alpha=0.1)
    for number, mean in enumerate((base, base, base, base, base[:, ::-1])):
        dump = json.dumps({"logical_count": rng.poisson(mean).tolist()}).encode()
        added = add(client, place, upload(client, dump, name=f"{number}.json"), time=number)
        assert added.status_code == 201, added.text
    drifts = [window["drift"] for window in client.get(place).json()["windows"]]
    assert [drift and (drift["method"], drift["drifted"]) for drift in drifts] == [
        None,
        ("none", None),
        ("none", None),
        ("prediction", False),
        ("prediction", True),
    ]


def test_limits_and_retention(tmp_path: Path) -> None:
    """A tenant has so many series; retention takes a series that got no window for so long, then its traces."""
    settings = Settings(data_dir=tmp_path / "data", tenant_series=1, max_workers=1)
    with local_client(settings) as local:
        begun(local)
        full = local.post("/v1/series", json={})
        assert (full.status_code, full.json()["type"]) == (429, "/problems/quota-exceeded")
    database, store = store_in(tmp_path)
    mine = store.of("local")
    trace, _ = mine.traces.add("sha256:" + "a" * 64, None, 1, {"kind": "counts"})
    row = mine.series.add("x", [], 0.05, 10)
    load = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(unpacked(packed(load), (2, 3)), load)
    mine.series.append(row, trace, 0, at=None, axes={"layer_ids": [0, 1]}, load=packed(load), drift=None)
    later = trace.created_at + 100
    assert store.drop_traces(later) == []
    assert store.drop_series(trace.created_at - 1) == 0
    assert store.drop_series(later) == 1
    assert store.drop_traces(later) == [trace.id]
    database.close()
