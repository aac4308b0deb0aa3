"""What engines record goes in as it is: through the upload and through the command line."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from placement import Plan
from tests.builders.cli import invoke as run

LAYERS, EXPERTS = 3, 8
IDS = np.random.default_rng(0).random((64, LAYERS, EXPERTS)).argsort(axis=2)[:, :, :2]


def router_traces() -> bytes:
    """Return a tar of the router traces of two Megatron ranks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for rank in range(2):
            records = []
            for layer in range(LAYERS):
                ids = IDS[rank::2, layer]
                record = {"step": 0, "stage": "pre_dispatch", "block": "decoder", "layer": layer, "rank": rank}
                records.append(record | {"num_tokens": len(ids), "topk": 2, "top_indices": ids.tolist()})
            content = "".join(json.dumps(record) + "\n" for record in records).encode()
            info = tarfile.TarInfo(f"run/router_trace_rank{rank}.jsonl")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def statistics() -> bytes:
    """Return one record of vLLM's EPLB statistics, 10 slots for 8 experts."""
    slots = [[*range(EXPERTS), 0, 1]] * LAYERS
    record = {"record_type": "eplb_load_stats", "version": 1, "step": 1, "num_ranks": 2}
    loads = np.random.default_rng(1).integers(1, 99, (LAYERS, 10)).tolist()
    return json.dumps(record | {"expert_load": loads, "p2l_map": slots}).encode() + b"\n"


def plan_of(client: TestClient, trace: str, **fields: Any) -> Any:
    """Ask for a plan and wait for it."""
    body = {"trace": trace, "topology": "1x4", "solver": "contiguous"} | fields
    return client.post("/v1/plans", json=body, headers={"Prefer": "wait=60"})


def test_uploaded_router_traces_become_a_plan(client: TestClient) -> None:
    """A tar of rank files is one trace, with tokens, ranks and affinity."""
    answer = client.post("/v1/traces", content=router_traces(), params={"name": "run.tar", "num_experts": EXPERTS})
    assert answer.status_code == 201, answer.text
    trace = answer.json()
    assert (trace["format"], trace["num_tokens"], trace["layer_ids"]) == ("megatron", 64, [0, 1, 2])
    assert plan_of(client, trace["id"]).json()["status"] == "succeeded"


def test_uploaded_statistics_have_no_affinity(client: TestClient) -> None:
    """Loads can be planned for balance; traffic between layers is refused with the reason."""
    answer = client.post("/v1/traces", content=statistics(), params={"name": "stats.jsonl"})
    assert answer.status_code == 201, answer.text
    trace = answer.json()
    assert (trace["format"], trace["kind"]) == ("vllm_eplb_stats", "counts")
    refused = plan_of(client, trace["id"], objective={"execution": "context_coherent"})
    assert refused.status_code == 422
    assert "counts_only" in refused.text
    planned = plan_of(client, trace["id"]).json()
    assert planned["status"] == "succeeded"
    assert planned["plan"]["provenance"]["engine"] == "vllm:hash"  # the format tells the engine
    assert planned["plan"]["provenance"]["objective"]["dedup"] == "none"  # all that counts can carry


def test_command_line_takes_archives_of_ranks(tmp_path: Path) -> None:
    """`profile` and `solve` read what the upload reads."""
    (tmp_path / "run.tar").write_bytes(router_traces())
    result = run("profile", tmp_path / "run.tar", "--num-experts", EXPERTS, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["tokens"] == 64
    solve = ("solve", tmp_path / "run.tar", "--topology", "1x4", "--solver", "contiguous", "--num-experts", EXPERTS)
    result = run(*solve, "-o", tmp_path / "plan.json")
    assert result.exit_code == 0, result.stderr
    assert Plan.load(tmp_path / "plan.json").num_experts == EXPERTS


def test_command_line_refuses_affinity_of_activations(tmp_path: Path) -> None:
    """llama.cpp's lines give loads: affinity needs more, a balanced plan, the default then, does not."""
    rows = [f"{layer},{expert}" for layer in range(LAYERS) for expert in IDS[:, layer].ravel()]
    (tmp_path / "moe_trace.csv").write_text("layer,expert\n" + "\n".join(rows) + "\n")
    solve = ("solve", tmp_path / "moe_trace.csv", "--topology", "1x4", "--solver", "contiguous")
    result = run(*solve, "--execution", "context_coherent", "-o", tmp_path / "plan.json")
    assert result.exit_code != 0
    assert "counts_only" in result.stderr
    result = run(*solve, "-o", tmp_path / "plan.json")
    assert result.exit_code == 0, result.stderr
