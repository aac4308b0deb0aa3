"""Counts over REST: dumps over time in a tar, plans held out by dump, and expected loads in place of a replay."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from placement import Plan, Topology
from solvers.judging.counted import counts_figures
from tests.builders.service import codes, npz, upload
from traces import LoadCounts

DUMPS = np.random.default_rng(5).integers(1, 900, (4, 2, 8))


def tar_of(dumps: Any) -> bytes:
    """Return counts as an archive with a file per time."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number, counts in enumerate(dumps):
            content = json.dumps(counts.tolist()).encode()
            info = tarfile.TarInfo(f"d{number}.json")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture(scope="module")
def trace_id(client: TestClient) -> str:
    """Upload four dumps."""
    return upload(client, tar_of(DUMPS), name="dumps.tar")


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Return the contiguous plan of two layers of eight experts on four GPUs."""
    return Plan.of(np.tile(np.arange(8), (2, 1)), layer_ids=[0, 1], num_experts=8, gpus_per_node=(4,))


def asked(plan: Plan, trace_id: str, **more: Any) -> dict[str, Any]:
    """Return the body of an evaluation of a plan's content."""
    content = {name: value for name, value in plan.as_dict().items() if name not in ("provenance", "warnings")}
    return {"plan": content, "trace": trace_id, "topology": "1x4", **more}


def test_a_tar_of_dumps_is_several(client: TestClient, trace_id: str) -> None:
    """The trace's answer says how many."""
    trace = client.get(f"/v1/traces/{trace_id}").json()
    assert (trace["kind"], trace["dumps"]) == ("counts", 4)


def test_some_layers_are_chosen_at_the_upload(client: TestClient) -> None:
    """Those alone are planned; a layer that is not there is refused with its parameter."""
    content = tar_of(DUMPS + 1)
    trace_id = upload(client, content, layers="1", num_experts=8)
    trace = client.get(f"/v1/traces/{trace_id}").json()
    assert (trace["layer_ids"], trace["dumps"]) == ([1], 4)
    refused = client.post("/v1/traces", content=tar_of(DUMPS + 2), params={"layers": "0-2"})
    assert "unknown_layers" in codes(refused).values()


@pytest.mark.parametrize(("part", "chosen"), [("all", range(4)), ("fit", [0]), ("held_out", [1, 2, 3])])
def test_counts_are_evaluated_by_expected_loads(
    client: TestClient, trace_id: str, plan: Plan, part: str, chosen: Any
) -> None:
    """In all, and at each time of the part, as the library tells them."""
    more = {} if part == "all" else {"hold_out": 0.75}
    answer = client.post("/v1/evaluations", json=asked(plan, trace_id, part=part, **more)).json()

    def figures(counts: Any) -> dict[str, Any]:
        return counts_figures(plan, LoadCounts.of(counts), Topology.parse("1x4"), part).loads.as_dict()

    assert (answer["kind"], answer["replica_policy"]) == ("counts", "fair")
    assert {name: answer[name] for name in figures(DUMPS[0])} == figures(DUMPS[list(chosen)].sum(axis=0))
    wanted = [{"name": f"d{number}.json"} | figures(DUMPS[number]) for number in chosen]
    assert [dump | {"name": dump["name"].rpartition("/")[2]} for dump in answer["dumps"]] == wanted


def test_what_needs_tokens_is_refused(client: TestClient, trace_id: str, plan: Plan) -> None:
    """All at once, each where the body has it."""
    more = {"execution": "dispatch", "dedup": "gpu", "ownership": "token", "decode_batch": 8, "pass_tokens": [64]}
    found = codes(client.post("/v1/evaluations", json=asked(plan, trace_id, **more)))
    assert found == {f"/{name}": "without_effect" for name in more}


def test_notes_of_the_topology_are_told(client: TestClient, trace_id: str, plan: Plan) -> None:
    """What was assumed of the machine stands with the figures, of counts as of tokens."""
    topology: dict[str, Any] = {"gpus_per_node": 4, "num_nodes": 1, "notes": ["Links were read off a data sheet."]}
    answer = client.post("/v1/evaluations", json=asked(plan, trace_id) | {"topology": topology}).json()
    assert answer["notes"][0] == topology["notes"][0]
    ids = np.random.default_rng(0).permuted(np.tile(np.arange(8), (300, 2, 1)), axis=2)[:, :, :2]
    tokens = upload(client, npz(topk_ids=ids.astype(np.uint8), num_experts=np.array(8)))
    by_source = {"trace": tokens, "topology": "1x4", "hold_out_by": "source"}
    assert codes(client.post("/v1/plans", json=by_source)) == {"/hold_out_by": "no_sources"}
    later = client.post("/v1/evaluations", json=asked(plan, tokens, part="held_out", hold_out=0.1, hold_out_by="time"))
    assert later.json()["tokens"] == 30
    replayed = client.post("/v1/evaluations", json=asked(plan, tokens) | {"topology": topology}).json()
    assert (replayed["kind"], replayed["notes"][0]) == ("tokens", topology["notes"][0])


def test_counts_are_held_out_by_dump(client: TestClient, trace_id: str) -> None:
    """A plan's summary has the figures of both parts and of every dump; counts of one time can't be split."""
    body = {"trace": trace_id, "topology": "1x4", "solver": "load_balance", "limits": {"work": 100}, "hold_out": 0.5}
    made = client.post("/v1/plans", json=body, headers={"Prefer": "wait=60"}).json()
    assert made["status"] == "succeeded", made
    found = made["summary"]["plans"]["plan"]
    assert [dump["part"] for dump in found["dumps"]] == ["fit", "fit", "held_out", "held_out"]
    assert set(found["counts"]) == {"fit", "held_out"}
    for by, pointer in (("sequence", "/hold_out_by"), ("source", "/hold_out_by")):
        refused = client.post("/v1/plans", json={**body, "hold_out_by": by})
        assert codes(refused) == {pointer: "hold_out_by_counts"}
    alone = upload(client, json.dumps(DUMPS[0].tolist()).encode(), name="one.json")
    refused = client.post("/v1/plans", json={**body, "trace": alone})
    assert codes(refused) == {"/hold_out": "hold_out_counts"}
