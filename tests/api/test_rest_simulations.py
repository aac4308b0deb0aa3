"""``/v1/simulations``: policies over a series as a job, with the figures of the library."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from solvers import simulate
from tests.builders.service import codes, upload
from traces import LoadCounts, series_of_each

BODY: dict[str, Any] = {"topology": "1x2", "redundant_experts": 2, "window_passes": 20_000}
WAIT = {"Prefer": "wait=200"}


@pytest.fixture(scope="module")
def loads() -> np.ndarray:
    """Return loads of windows, (W, L, E), that change once."""
    base = np.array([[900, 500, 300, 100, 90, 80], [80, 90, 100, 300, 500, 900]])
    return np.random.default_rng(0).poisson(np.stack([base, base, base[::-1], base[::-1]]))


@pytest.fixture(scope="module")
def series(client: TestClient, loads: np.ndarray) -> str:
    """Make them a series and return its id."""
    made: str = client.post("/v1/series", json={}).json()["id"]
    for number, load in enumerate(loads):
        dump = upload(client, json.dumps({"logical_count": load.tolist()}).encode(), name=f"{number}.json")
        added = client.post(f"/v1/series/{made}/windows", json={"trace": dump})
        assert added.status_code == 201, added.text
    return made


def test_the_same_words_give_the_same_times(client: TestClient, loads: np.ndarray, series: str) -> None:
    """REST and Python agree; the plan to run next can be named by others; its series stays while it is needed."""
    done = client.post("/v1/simulations", json=BODY | {"series": series}, headers=WAIT)
    assert done.status_code == 200, done.text
    found = done.json()
    assert found["status"] == "succeeded", found
    here = simulate(series_of_each([LoadCounts.of(load) for load in loads]), **BODY)
    assert (found["series"], found["series_length"], found["trace"]) == (series, 4, None)
    assert [run["name"] for run in found["simulation"]["policies"]] == [run.name for run in here.policies]
    np.testing.assert_allclose(
        [run["total_ms"] for run in found["simulation"]["policies"]], [run.total_ms for run in here.policies]
    )
    assert found["simulation"]["now"] == here.now
    plan = client.get(f"/v1/simulations/{found['id']}/plan").json()
    assert plan["physical_to_logical_map"] == here.plan.physical_to_logical_map.tolist()


def test_windows_that_came_since_are_left_out(client: TestClient, series: str) -> None:
    """A job keeps to the windows that there were when it was asked for, and its series can't be deleted meanwhile."""
    blocking = client.post("/v1/simulations", json=BODY | {"series": series}).json()
    if client.get(f"/v1/simulations/{blocking['id']}").json()["status"] in ("queued", "running"):
        refused = client.delete(f"/v1/series/{series}")
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/series-in-use")
    dump = {"logical_count": [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]]}
    later = upload(client, json.dumps(dump).encode(), name="later.json")
    client.post(f"/v1/series/{series}/windows", json={"trace": later}).raise_for_status()
    done = client.get(f"/v1/simulations/{blocking['id']}", headers=WAIT).json()
    assert done["simulation"]["windows"] == 4
    assert client.get(f"/v1/series/{series}").json()["num_windows"] == 5


def test_one_trace_is_cut(client: TestClient, trace_id: str) -> None:
    """A trace in place of a series, in windows."""
    body = {"trace": trace_id, "topology": "1x2", "windows": 3}
    done = client.post("/v1/simulations", json=body, headers=WAIT).json()
    assert done["status"] == "succeeded", done
    assert done["simulation"]["windows"] == 3


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"machine": "abacus:1x2"}, {"/series": "source_forms", "/machine": "unknown_gpu"}),
        (
            {"series": "series_" + "0" * 32, "plan": "plan_" + "0" * 32},
            {"/series": "unknown_series", "/plan": "unknown_plan"},
        ),
        (
            {"trace": "sha256:" + "0" * 64, "model": "/etc/passwd"},
            {"/trace": "unknown_trace", "/model": "unknown_model"},
        ),
    ],
)
def test_what_is_refused(client: TestClient, said: dict[str, Any], told: dict[str, str]) -> None:
    """All that is wrong, at once."""
    assert codes(client.post("/v1/simulations", json=BODY | said)) == told


def test_what_a_series_leaves_nothing_to_say(client: TestClient, series: str) -> None:
    """Its windows are cut; and one window is none."""
    refused = client.post("/v1/simulations", json=BODY | {"series": series, "windows": 3, "by": "tokens"})
    assert codes(refused) == {"/windows": "without_effect", "/by": "without_effect"}
    single = client.post("/v1/series", json={}).json()["id"]
    assert codes(client.post("/v1/simulations", json=BODY | {"series": single})) == {"/series": "one_dump"}
