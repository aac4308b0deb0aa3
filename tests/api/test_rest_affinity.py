"""A look at a trace: loads and the affinity of two layers, at a bounded size."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.builders.service import upload
from traces import Profile, load


def look(client: TestClient, trace_id: str, **params: Any) -> dict[str, Any]:
    """Return the answer."""
    response = client.get(f"/v1/traces/{trace_id}/affinity", params=params)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


@pytest.fixture(scope="module")
def profile(trace_bytes: bytes, tmp_path_factory: pytest.TempPathFactory) -> Profile:
    """Return the profile of the small valid trace."""
    file = tmp_path_factory.mktemp("affinity") / "trace.npz"
    file.write_bytes(trace_bytes)
    return Profile.of(load(file), workers=1)


@pytest.mark.parametrize(("layer", "pair"), [(None, 0), (1, 0), (4, 3)])
def test_counts_are_the_profiles(
    client: TestClient, trace_id: str, profile: Profile, layer: int | None, pair: int
) -> None:
    """Loads and pairs are those of the profile; without a layer, of the first pair."""
    answer = look(client, trace_id, **({} if layer is None else {"layer": layer}))
    assert profile.affinity is not None
    assert answer["affinity"] == profile.affinity[pair].tolist()
    assert answer["load"] == profile.load.tolist()
    assert [answer["layer_id"], answer["next_layer_id"]] == profile.layer_ids[pair : pair + 2].tolist()
    assert (answer["tokens"], answer["experts_per_cell"], answer["notes"]) == (2000, 1, [])


def test_neighbours_share_cells(client: TestClient, trace_id: str, profile: Profile) -> None:
    """With 8 cells for 32 experts, each cell has the sum of 4."""
    answer = look(client, trace_id, size=8)
    assert profile.affinity is not None
    assert answer["experts_per_cell"] == 4
    assert answer["affinity"] == profile.affinity[0].reshape(8, 4, 8, 4).sum(axis=(1, 3)).tolist()
    assert answer["load"] == profile.load.reshape(6, 8, 4).sum(axis=2).tolist()


def test_size_is_bounded(client: TestClient) -> None:
    """Many layers and experts that no cell divides: rows and cells are shared, and nothing is lost."""
    rng = np.random.default_rng(0)
    ids = rng.permuted(np.broadcast_to(np.arange(301, dtype=np.int16), (40, 20, 301)), axis=2)[:, :, :2]
    file = io.BytesIO()
    np.savez(file, topk_ids=ids, layer_ids=np.arange(20), num_experts=np.array(301))
    answer = look(client, upload(client, file.getvalue()), size=8)
    assert (answer["experts_per_cell"], answer["layers_per_row"]) == (38, 3)
    assert np.shape(answer["load"]) == (7, 8)
    assert np.sum(answer["load"]) == ids.size
    cell = ids.astype(int) // 38
    expected = np.zeros((8, 8), int)
    for first, second in zip(cell[:, 0], cell[:, 1], strict=True):
        for i in first:
            for j in second:
                expected[i, j] += 1
    assert answer["affinity"] == expected.tolist()
    assert answer["layer_ids"] == [0, 3, 6, 9, 12, 15, 18]


@pytest.mark.parametrize(("tokens", "cut"), [(1, True), (1999, True), (2000, False), (2001, False)])
def test_only_so_many_tokens(client: TestClient, trace_id: str, tokens: int, cut: bool) -> None:
    """A limit counts the first tokens, and says so if there are more."""
    answer = look(client, trace_id, tokens=tokens)
    assert answer["tokens"] == min(tokens, 2000)
    assert np.sum(answer["load"][0]) == 2 * min(tokens, 2000)
    assert bool(answer["notes"]) == cut


def test_saved_profile(client: TestClient, profile: Profile, tmp_path: Path) -> None:
    """A profile shows what it has counted."""
    profile.save(tmp_path / "profile.npz")
    answer = look(client, upload(client, (tmp_path / "profile.npz").read_bytes()), layer=2, size=16)
    assert profile.affinity is not None
    assert answer["affinity"] == profile.affinity[1].reshape(16, 2, 16, 2).sum(axis=(1, 3)).tolist()
    assert answer["tokens"] == 2000


def test_counts_have_loads_only(client: TestClient) -> None:
    """Counts per expert have no pairs; asking for some is refused."""
    trace_id = upload(client, json.dumps(np.arange(1.0, 17.0).reshape(2, 8).tolist()).encode())
    answer = look(client, trace_id)
    assert answer["affinity"] is None
    assert answer["layer_id"] is None
    assert answer["load"] == np.arange(1.0, 17.0).reshape(2, 8).tolist()
    refused = client.get(f"/v1/traces/{trace_id}/affinity", params={"layer": 0})
    assert refused.json()["errors"][0]["code"] == "no_pairs"


@pytest.mark.parametrize(
    ("params", "code"),
    [({"layer": 6}, "unknown_layer"), ({"layer": 99}, "unknown_layer"), ({"sise": 8}, "unknown_parameter")],
)
def test_what_there_is_not(client: TestClient, trace_id: str, params: dict[str, int], code: str) -> None:
    """The last layer has no next one; misspelt parameters are refused."""
    response = client.get(f"/v1/traces/{trace_id}/affinity", params=params)
    assert response.status_code == 422
    assert response.json()["errors"][0]["code"] == code


@pytest.mark.parametrize("params", [{"size": 7}, {"size": 513}, {"tokens": 0}, {"layer": -1}])
def test_out_of_bounds(client: TestClient, trace_id: str, params: dict[str, int]) -> None:
    """Sizes that nobody can look at are refused."""
    assert client.get(f"/v1/traces/{trace_id}/affinity", params=params).status_code == 422


def test_same_question_is_not_counted_again(client: TestClient, trace_id: str) -> None:
    """The ETag belongs to the trace and the question."""
    path = f"/v1/traces/{trace_id}/affinity"
    tags = [client.get(path, params=params).headers["etag"] for params in ({}, {"layer": 1}, {"layer": 2})]
    assert tags[0] == tags[1] != tags[2]
    assert client.get(path, headers={"If-None-Match": tags[0]}).status_code == 304
    assert client.get(path, params={"layer": 2}, headers={"If-None-Match": tags[0]}).status_code == 200


def test_unknown_trace(client: TestClient, make_trace_bytes: Callable[..., bytes]) -> None:
    """There is nothing to see of a trace that does not exist, or was deleted."""
    trace_id = upload(client, make_trace_bytes(seed=99))
    assert client.delete(f"/v1/traces/{trace_id}").status_code == 204
    for unknown in (trace_id, "sha256:" + "0" * 64):
        assert client.get(f"/v1/traces/{unknown}/affinity").status_code == 404
