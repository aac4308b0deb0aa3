"""Hostile requests: every one is answered with 4xx and a problem document, and leaves nothing behind."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from tests.builders.service import npz

JSON = {"Content-Type": "application/json"}
ZERO = "sha256:" + "0" * 64


def bomb() -> bytes:
    """Return a small archive whose header claims 4 GB of ids."""
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 512, 8)}
    np.lib.format.write_array_header_1_0(header, shape)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("topk_ids.npy", "w") as member:
        member.write(header.getvalue())
        for _ in range(64):
            member.write(bytes(1 << 20))
    return file.getvalue()


IDS = np.arange(8, dtype=np.int64).reshape(2, 2, 2)
UPLOADS: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "binary": bytes(range(256)) * 4,
    "json": b'{"a": 1}',
    "json lines without layers": b'{"token": 1}\n{"token": 2}\n',
    "html": b"<html></html>",
    "zip of nothing": npz(),
    "no ids": npz(load=np.ones(3)),
    "two axes": npz(topk_ids=np.zeros((4, 2), np.int64)),
    "floats": npz(topk_ids=np.zeros((4, 2, 1))),
    "pickle": npz(topk_ids=np.array([object()], dtype=object)),
    "out of range": npz(topk_ids=IDS, num_experts=4),
    "negative": npz(topk_ids=IDS - 5, num_experts=8),
    "twice in a token": npz(topk_ids=np.zeros((4, 2, 2), np.int64), num_experts=8),
    "nothing routed": npz(topk_ids=np.full((4, 2, 2), -1), num_experts=8),
    "one empty layer": npz(topk_ids=np.stack([IDS[:, 0], np.full((2, 2), -1)], axis=1), num_experts=8),
    "zero tokens": npz(topk_ids=np.zeros((0, 2, 2), np.int64), num_experts=8),
    "NaN weights": npz(topk_ids=IDS, num_experts=8, gate_weights=np.full((2, 2, 2), np.nan)),
    "misspelt column": npz(topk_ids=IDS, num_experts=8, seq_ids=np.zeros(2, np.int64)),
    "layers out of order": npz(topk_ids=IDS, num_experts=8, layer_ids=np.array([2, 1])),
    "parquet magic": b"PAR1" + bytes(100) + b"PAR1",
    "npy magic": b"\x93NUMPY\x01\x00v\x00garbage",
    "bomb": bomb(),
}


def check(response: Any, *statuses: int) -> dict[str, Any]:
    """Return the problem document of a response, which must have one of `statuses`."""
    assert response.status_code in statuses, (response.status_code, response.text[:500])
    assert response.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = response.json()
    assert content["status"] == response.status_code
    assert content["detail"]
    assert "Traceback" not in response.text
    assert "/site-packages/" not in response.text
    return content


def files(client: TestClient) -> set[Path]:
    """Return the files that the service keeps of uploads."""
    blobs = client.app.state.services.settings.data_dir / "blobs"  # type: ignore[attr-defined]  # FastAPI
    return {path for path in blobs.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", UPLOADS)
def test_bad_upload(client: TestClient, name: str) -> None:
    """A file that is no valid trace is refused with the rule that it breaks, and nothing stays of it."""
    before = files(client), len(client.get("/v1/traces").json()["items"])
    response = client.post("/v1/traces", content=UPLOADS[name], params={"name": "mine.bin"})
    content = check(response, 422)
    assert content["type"] == "/problems/invalid-trace"
    assert content["errors"]
    assert "upload-" not in response.text, "the service's own file name is told"
    assert str(client.app.state.services.settings.data_dir) not in response.text  # type: ignore[attr-defined]  # FastAPI
    assert (files(client), len(client.get("/v1/traces").json()["items"])) == before


def test_cut_off_upload(client: TestClient, trace_bytes: bytes) -> None:
    """A trace that is cut off anywhere is refused."""
    for share in (0.01, 0.3, 0.9, 0.999):
        check(client.post("/v1/traces", content=trace_bytes[: int(len(trace_bytes) * share)]), 422)


def test_too_large_upload(client: TestClient) -> None:
    """A body above the limit is refused, whether it states its size or not."""
    before = files(client)
    check(client.post("/v1/traces", content=bytes(2_000_001)), 413)

    def parts() -> Any:
        for _ in range(30):
            yield bytes(100_000)

    check(client.post("/v1/traces", content=parts()), 413)
    assert files(client) == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Encoding": "br"}, 415),
        ({"Content-Encoding": "gzip"}, 400),
        ({"Content-Digest": "sha-256=:@@@:"}, 400),
        ({"Content-Digest": "nonsense"}, 400),
        ({"Host": "evil.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_bad_upload_headers(client: TestClient, trace_bytes: bytes, headers: dict[str, str], status: int) -> None:
    """Forms, encodings, wrong digests, and web pages of other sites are refused."""
    check(client.post("/v1/traces", content=trace_bytes, headers=headers), status)


@pytest.mark.parametrize(
    "params",
    [
        {"num_experts": 0},
        {"num_experts": "many"},
        {"num_expert": 32},
        {"num_experts": [32, 64]},
        {"format": "pickle"},
        {"layer_ids": "1-"},
        {"layer_ids": "0-999999,0-999999,0-999999"},
        {"layer_ids": "1"},
        {"layer_ids": "9,8,7,6,5,4"},
        {"name": ""},
        {"name": "a\x00b"},
        {"name": "x" * 201},
    ],
)
def test_bad_upload_parameters(client: TestClient, make_trace_bytes: Any, params: dict[str, Any]) -> None:
    """Parameters out of range, and those that the file contradicts, are refused."""
    content = make_trace_bytes(tokens=64, seed=77)
    check(client.post("/v1/traces", content=content, params=params), 422)


BODIES: dict[str, bytes] = {
    "no json": b"{",
    "empty": b"",
    "array": b"[]",
    "string": b'"plan"',
    "null": b"null",
    "not UTF-8": b'{"trace": "\xff"}',
    "deep": b"[" * 50_000,
    "deep options": b'{"trace":"'
    + ZERO.encode()
    + b'","topology":"1x4","options":'
    + b'{"a":' * 900
    + b"1"
    + b"}" * 901,
    "option object": b'{"trace":"' + ZERO.encode() + b'","topology":"1x4","options":{"a":{}}}',
    "option infinity": b'{"trace":"' + ZERO.encode() + b'","topology":"1x4","options":{"a":Infinity}}',
    "NaN": b'{"trace":"' + ZERO.encode() + b'","topology":"1x4","constraints":{"load_cap":NaN}}',
    "infinite": b'{"trace":"' + ZERO.encode() + b'","topology":"1x4","limits":{"time_s":1e999}}',
    "huge integer": b'{"trace":"' + ZERO.encode() + b'","topology":"1x4","seed":' + b"9" * 5000 + b"}",
    "large integer": b'{"trace":"' + ZERO.encode() + b'","topology":"1x4","seed":' + b"9" * 100 + b"}",
    "lone surrogate": b'{"trace":"' + ZERO.encode() + b'","topology":"\\ud800","name":"\\ud800"}',
    "surrogate field": b'{"\\ud800": 1}',
    "surrogate option": b'{"trace":"' + ZERO.encode() + b'","topology":"1x4","options":{"\\udfff":"\\ud800"}}',
    "key twice": b'{"trace":"' + ZERO.encode() + b'","topology":"1x4","seed":1,"seed":2}',
    "key twice inside": b'{"trace":"' + ZERO.encode() + b'","topology":"1x4","limits":{"work":1,"work":1}}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "nul": b'{"trace":"' + ZERO.encode() + b'","topology":"1x4","name":"a\\u0000b"}',
}


@pytest.mark.parametrize("path", ["/v1/plans", "/v1/evaluations"])
@pytest.mark.parametrize("name", BODIES)
def test_bad_body(client: TestClient, name: str, path: str) -> None:
    """Whatever is no JSON object of the right fields is refused."""
    check(client.post(path, content=BODIES[name], headers=JSON), 400, 422)


@pytest.mark.parametrize("name", ["no json", "not UTF-8", "deep", "huge integer", "byte order mark"])
def test_malformed_json(client: TestClient, name: str) -> None:
    """What can't be parsed is told apart from what breaks a rule, with the reason."""
    content = check(client.post("/v1/plans", content=BODIES[name], headers=JSON), 400)
    assert content["type"] == "/problems/malformed-json"
    assert content["detail"].startswith("The body ")


def test_key_twice(client: TestClient, trace_id: str) -> None:
    """A key that occurs twice has no clear value: it is refused, as in files."""
    body = b'{"trace":"' + trace_id.encode() + b'","topology":"1x4","limits":{"work":1},"seed":1,"seed":2}'
    content = check(client.post("/v1/plans", content=body, headers=JSON), 422)
    assert [item["code"] for item in content["errors"]] == ["duplicate_key"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {**JSON, "Content-Encoding": "gzip"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/plans", "/v1/evaluations"])
def test_body_of_another_type(client: TestClient, path: str, headers: dict[str, str]) -> None:
    """JSON has to be sent as JSON: a plain form of a web page can't do that."""
    check(client.post(path, content=b"{}", headers=headers), 415)


@pytest.mark.parametrize(
    "topology",
    [
        "",
        "0x8",
        "9999x9999",
        "8+",
        "hgx_h100:9999",
        "../../etc/passwd.json",
        "x" * 30_000,
        {},
        {"gpus_per_node": 8, "num_nodes": 10**9},
        {"gpus_per_node": [0]},
        {"gpus_per_node": [4096] * 4096},
        {"gpus_per_node": [1] * 5000},
        {"rank_cost_matrix": [[0, 1], [1]]},
        {"rank_cost_matrix": [[0, -1], [1, 0]]},
        {"rank_cost_matrix": [[1]]},
        {"rank_cost_matrix": []},
        {"gpus_per_node": 2, "gpu_speed": [1]},
        {"gpus_per_node": 2, "gpu_speed": 0},
        {"gpus_per_node": 2, "intra_node": {"bandwidth_gb_s": 0}},
        {"gpus_per_node": 2, "intra_node": {"bandwidth_gb_s": 5e-324}, "inter_node": {"bandwidth_gb_s": 1e308}},
        {"gpus_per_node": 2, "schema_version": 2},
        {"gpus_per_node": 2, "slots": [1, 1]},
        [1, 2],
        7,
        None,
        True,
    ],
)
def test_bad_topology(client: TestClient, trace_id: str, topology: Any) -> None:
    """Topologies that are no machine, or larger than any, are refused without making arrays of their size."""
    response = client.post("/v1/plans", json={"trace": trace_id, "topology": topology, "limits": {"work": 1}})
    if isinstance(topology, dict) and "inter_node" in topology:
        assert response.status_code < 500  # extreme, but a machine
        return
    check(response, 422)


def test_large_body(client: TestClient, trace_id: str) -> None:
    """A JSON body above the limit is refused, whether it states its size or not."""
    body = json.dumps({"trace": trace_id, "topology": "1x4", "options": {"a": "x" * 200_000}}).encode()
    check(client.post("/v1/plans", content=body, headers=JSON), 413)
    check(client.post("/v1/plans", content=iter([body[:60_000], body[60_000:]]), headers=JSON), 413)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_gpus", 10**12),
        ("num_gpus", 4096),
        ("gpus_per_node", 10**9),
        ("gpus_per_node", [1, 1]),
        ("slots_per_gpu", 0),
        ("num_experts", 10**9),
        ("layer_ids", []),
        ("layer_ids", [3, 2, 1, 4, 5, 6]),
        ("layer_ids", [0] * 5000),
        ("physical_to_logical_map", [[]]),
        ("physical_to_logical_map", [[0, 1], [0]]),
        ("physical_to_logical_map", [[-2] * 32] * 6),
        ("physical_to_logical_map", [[1.5] * 32] * 6),
        ("physical_to_logical_map", "0,1"),
        ("schema_version", 2),
        ("schema_version", True),
        ("provenance", []),
        ("provenance", {"a": [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]}),
        ("termination", {"reason": {"a": {"b": {"c": {"d": "e"}}}}, "x": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}),
        ("extra", 1),
    ],
)
def test_bad_inline_plan(client: TestClient, trace_id: str, field: str, value: Any) -> None:
    """Inline plans that are no plan, or name sizes beyond reason, are refused."""
    plan = {
        "schema_version": 1,
        "layer_ids": [1, 2, 3, 4, 5, 6],
        "num_experts": 32,
        "num_gpus": 4,
        "gpus_per_node": 4,
        "slots_per_gpu": 8,
        "physical_to_logical_map": [list(range(32))] * 6,
    }
    assert client.post("/v1/evaluations", json={"plan": plan, "trace": trace_id}).status_code == 200
    check(client.post("/v1/evaluations", json={"plan": {**plan, field: value}, "trace": trace_id}), 422)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/traces/..%2f..%2fservice.db", 404),
        ("GET", "/v1/traces/sha256:zz", 404),
        ("DELETE", "/v1/traces/%00", 404),
        ("GET", "/v1/plans/'; DROP TABLE plans; --", 404),
        ("POST", "/v1/plans/none/cancel", 404),
        ("DELETE", "/v1/plans/none", 404),
        ("GET", "/v1/plans/none/plan", 404),
        ("GET", "/v1/plans/none/exports/sglang", 404),
        ("GET", "/v1/plans/none/exports/sglang?model_layers=0", 422),
        ("PUT", "/v1/plans", 405),
        ("PATCH", "/v1/traces", 405),
        ("GET", "/v1/evaluations", 405),
        ("GET", "/v1/plans?limit=0", 422),
        ("GET", "/v1/plans?limit=9999", 422),
        ("GET", "/v1/plans?cursor=zz!", 422),
        ("GET", "/v1/plans?cursor=AAAA", 422),
        ("GET", "/v1/plans?status=asleep", 422),
        ("GET", "/v1/plans?colour=red", 422),
        ("GET", "/v1/plans?limit=1&limit=2", 422),
        ("GET", "/v1/plans/none?wait=5", 422),
        ("GET", "/v1/plans/", 404),
    ],
)
def test_bad_paths(client: TestClient, method: str, path: str, status: int) -> None:
    """Unknown resources, methods and parameters are answered with problem documents too."""
    response = client.request(method, path)
    check(response, status)
    if status == 405:
        allowed = {"/v1/plans": "GET, HEAD, POST", "/v1/traces": "GET, HEAD, POST", "/v1/evaluations": "POST"}
        assert response.headers["allow"] == allowed[path]


def test_strange_preferences_are_ignored(client: TestClient) -> None:
    """A preference that can't be read is no error, as RFC 7240 has it."""
    for prefer in ("wait", "wait=", "wait=abc", "wait=-1", "respond-async", ", ,;"):
        check(client.get("/v1/plans/none", headers={"Prefer": prefer}), 404)


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
def test_bad_idempotency_key(client: TestClient, trace_id: str, key: str) -> None:
    """A key that can't be stored as it is, is refused."""
    body = {"trace": trace_id, "topology": "1x4", "solver": "contiguous"}
    check(client.post("/v1/plans", json=body, headers={"Idempotency-Key": key}), 422)


def test_fault_of_ours(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the service is a problem document with the request id, and tells nothing about the code."""

    def broken() -> Callable[[], None]:
        raise KeyError("secret detail")

    monkeypatch.setattr(client.app.state.services.store, "counts", broken)  # type: ignore[attr-defined]  # FastAPI
    with capture_logs() as logs:
        response = client.get("/readyz", headers={"X-Request-ID": "fault-1"})
    content = check(response, 500)
    assert [entry["path"] for entry in logs if entry.get("exc_info")] == ["/readyz"]
    assert response.headers["x-request-id"] == "fault-1"
    assert "fault-1" in content["detail"]
    assert "secret" not in response.text
