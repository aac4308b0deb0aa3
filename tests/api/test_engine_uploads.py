"""Files of engines through the service and the command line: found by content, or with the format named."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from api.cli import app
from api.resources.traces.answers import engine_of_facts
from tests.engine_files import Toy, sglang_records, sglang_responses, sglang_stat, vllm_array, write_bundle
from tests.torch_files import torch_bytes, zip_bytes

TOY = Toy()


def tar(files: Mapping[str, bytes]) -> bytes:
    """Pack files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"dump/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


@pytest.mark.parametrize("packing", ["tar", "tar.gz", "tar.zst"])
def test_an_archive_of_all_ranks_is_uploaded(client: TestClient, packing: str) -> None:
    """The records of every rank come as one body, compressed or not, and a plan can be made from them."""
    content = tar(sglang_records(TOY, tokens=True))
    if packing == "tar.gz":
        content = gzip.compress(content)
    if packing == "tar.zst":
        content = zstandard.ZstdCompressor().compress(content)
    response = client.post("/v1/traces", content=content, params={"name": "dump.bin"})
    assert response.status_code in (200, 201), response.text
    trace = response.json()
    assert (trace["format"], trace["kind"], trace["num_tokens"]) == ("sglang_per_token", "trace", len(TOY.ids))
    assert trace["layer_ids"] == list(TOY.moe)
    assert trace["engine"] == "sglang"
    assert any("Physical experts were folded" in note for note in trace["notes"])
    if packing == "tar.gz":
        asked = {"trace": trace["id"], "topology": "1x4", "limits": {"work": 50}, "solver": "contiguous"}
        plan = client.post("/v1/plans", json=asked, headers={"Prefer": "wait=60"}).json()
        assert plan["status"] == "succeeded", plan
        assert plan["summary"]["engine"] == "sglang:static"


def test_a_torch_file_is_uploaded(client: TestClient) -> None:
    """Counts of the recorder, by content or by name."""
    (content,) = sglang_stat(TOY).values()
    for options in ({}, {"format": "sglang_stat"}):
        trace = client.post("/v1/traces", content=content, params=options).json()
        assert (trace["format"], trace["kind"], trace["num_experts"]) == ("sglang_stat", "counts", TOY.experts)
        assert trace["engine"] == "sglang"
    assert client.post("/v1/traces", content=content, params={"format": "npz"}).status_code == 409
    other = torch_bytes({"rank": 0, "logical_count": [1]})
    refused = client.post("/v1/traces", content=other, params={"name": "x.pt", "format": "exflow"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "x.pt"), refused.text


def test_counts_of_an_engine_are_planned_for_it(client: TestClient) -> None:
    """A body that says nothing of how tokens travel is checked for the engine that recorded the trace."""
    (content,) = sglang_stat(TOY).values()
    trace = client.post("/v1/traces", content=content).json()["id"]
    asked = {"trace": trace, "topology": "1x4", "solver": "contiguous"}
    assert client.post("/v1/plans/validate", json=asked).status_code == 200
    straight = asked | {"objective": {"execution": "context_coherent"}}
    refused = client.post("/v1/plans/validate", json=straight)
    assert "counts_only" in {item["code"] for item in refused.json()["errors"]}


@pytest.mark.parametrize(
    ("facts", "engine"),
    [
        ({"format": "sglang_stat"}, "sglang"),  # as earlier versions wrote them
        ({"format": "npz"}, None),
        ({"format": "sglang_stat", "engine": None}, None),
        ({"format": "profile", "engine": "vllm"}, "vllm"),
    ],
)
def test_engine_of_older_facts(facts: dict[str, Any], engine: str | None) -> None:
    """Where the facts do not name the engine, the format does."""
    assert engine_of_facts(facts) == engine


def test_what_the_client_knows_comes_as_parameters(client: TestClient) -> None:
    """The shape that SGLang does not send; it is remembered with the trace, and all of it is checked."""
    (content,) = sglang_responses(TOY).values()
    missing = client.post("/v1/traces", content=content)
    assert missing.status_code == 422
    assert {item["code"] for item in missing.json()["errors"]} == {"model_needed", "top_k_needed"}
    known: dict[str, Any] = {"model_layers": 6, "top_k": 3, "layer_ids": "1-2,4-5"}
    trace = client.post("/v1/traces", content=content, params=known).json()
    assert (trace["num_tokens"], trace["layer_ids"]) == (len(TOY.ids), list(TOY.moe))
    assert client.post("/v1/traces", content=content, params=known).status_code == 200
    assert client.post("/v1/traces", content=content, params=known | {"drop_dummy_rows": True}).status_code == 409
    lonely = client.post("/v1/traces", content=content, params={"first_moe_layer": 1})
    assert lonely.json()["errors"][0]["pointer"] == "?first_moe_layer"


def test_hostile_files_are_answered_with_reasons(client: TestClient) -> None:
    """Nothing of a pickle is run, and the name of what it wants is told; a bomb ends early."""
    evil = zip_bytes({"a/data.pkl": b"\x80\x02cposix\nsystem\n(X\x04\0\0\0truetR.", "a/version": b"3\n"})
    answer = client.post("/v1/traces", content=evil, params={"name": "evil.pt"})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["code"] == "forbidden_pickle"
    assert "posix.system" in error["detail"]
    assert error["pointer"].startswith("evil.pt#")
    bomb = client.post("/v1/traces", content=gzip.compress(bytes(70 << 20)), params={"name": "bomb"})
    assert (bomb.status_code, bomb.json()["errors"][0]["code"]) == (422, "unpacks_too_large")


def document(*arguments: object) -> dict[str, Any]:
    """Run a command with ``--json`` and return what it printed."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_command_line_takes_folders_and_options(tmp_path: Path) -> None:
    """A folder of rank files, and dummy rows that are dropped on request."""
    folder = write_bundle(tmp_path / "dump", sglang_records(TOY, tokens=True))
    assert document("profile", folder)["tokens"] == len(TOY.ids)
    path = write_bundle(tmp_path / "one", vllm_array(TOY))
    found = document("profile", path, "--drop-dummy", "--layer-ids", "1-2,4-5")
    assert found["tokens"] == len(TOY.ids)
    assert any("on request" in note for note in found["sources"][0]["notes"])


def beyond_file(path: Path) -> Path:
    """Write a trace with phases, whose last id of every token is that of a shared expert."""
    ids = np.insert(TOY.ids, TOY.top_k, TOY.experts, axis=2)
    np.savez(path, topk_ids=ids, layer_ids=TOY.moe, phase=(np.arange(len(ids)) % 4 > 0).astype(np.uint8))
    return path


def test_the_command_line_says_what_ids_beyond_the_experts_are(tmp_path: Path) -> None:
    """As none, with the experts per token that are left; and one phase is taken out of the trace."""
    path = beyond_file(tmp_path / "t.npz")
    result = CliRunner().invoke(app, ["profile", str(path), "--num-experts", "16"])
    assert result.exit_code == 1
    assert "--ids-beyond-experts none" in " ".join(result.stderr.split())
    given = ("--num-experts", 16, "--top-k", TOY.top_k, "--ids-beyond-experts", "none", "--phase", "decode")
    found = document("profile", path, *given)
    assert found["tokens"] == len(TOY.ids) * 3 // 4
    solved = document("solve", path, *given, "--topology", "1x4", "--solver", "contiguous", "-o", tmp_path / "p.json")
    assert solved


def test_uploads_say_what_ids_beyond_the_experts_are(client: TestClient, tmp_path: Path) -> None:
    """The parameters of reading are those of the library, and belong to the trace that is kept."""
    content = beyond_file(tmp_path / "t.npz").read_bytes()
    known: dict[str, Any] = {"num_experts": 16, "top_k": 3, "ids_beyond_experts": "none", "phase": "decode"}
    assert client.post("/v1/traces", content=content, params={"num_experts": 16}).status_code == 422
    trace = client.post("/v1/traces", content=content, params=known)
    assert trace.status_code == 201, trace.text
    assert (trace.json()["num_tokens"], trace.json()["top_k"]) == (len(TOY.ids) * 3 // 4, 3)
    assert client.post("/v1/traces", content=content, params=known | {"phase": "prefill"}).status_code == 409
    for wrong in ({"layer_base": 1}, {"layer_base": 2}, {"phase": "both"}):
        assert client.post("/v1/traces", content=content + b"x", params=wrong).status_code == 422


def test_dummies_of_an_upload_are_counted_to_its_end(client: TestClient) -> None:
    """An upload is read whole, so what it says of dummy rows is of all rows, not of its start."""
    ids = np.random.default_rng(5).random((9000, 4, 8)).argsort(axis=2)[:, :, :2].astype(np.uint8)
    ids[8300:] = ids[8300]
    packed = io.BytesIO()
    np.savez(packed, topk_ids=ids, num_experts=np.int64(8), layer_ids=np.arange(4))
    response = client.post("/v1/traces", content=packed.getvalue())
    assert response.status_code == 201, response.text
    assert any(note.startswith("Of all 9,000 rows, ") for note in response.json()["notes"])
