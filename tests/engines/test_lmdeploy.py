"""LMDeploy: its statistics and responses are read, and its planner loads statistics that we write."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import traces
from tests.engines.harness import engine, module
from tests.engines.recipes import PAGES, commands
from traces import LoadCounts, ModelLayout, Trace

LAYERS, DENSE, EXPERTS, RANKS, REDUNDANT = 5, 1, 8, 4, 4


def statistics() -> np.ndarray[Any, Any]:
    """Return loads, a row per layer of the model, as LMDeploy asks for."""
    load = np.random.default_rng(1).integers(1, 99, (LAYERS, EXPERTS))
    load[:DENSE] = 0
    return load


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return LMDeploy's module that plans, with the file's name and sizes set as the environment would."""
    code = module("lmdeploy.pytorch.nn.eplb")
    monkeypatch.setattr(code, "eplb_experts_statistic_file", str(tmp_path / "statistics.json"))
    for name, value in (("num_groups", 1), ("num_redundant_experts", REDUNDANT), ("ranks_per_node", 8)):
        monkeypatch.setattr(code, f"eplb_{name}", value)
    return code


def test_statistics_go_both_ways(planner: Any, tmp_path: Path) -> None:
    """A file that LMDeploy plans from is read with the model's layers: the same loads, layer by layer."""
    file = tmp_path / "statistics.json"
    file.write_text(json.dumps(statistics().tolist()))
    made = planner.EPLBMetadata.init(RANKS, EXPERTS, LAYERS)
    assert made.physical_to_logical_map.shape == (LAYERS, EXPERTS + REDUNDANT)
    read = traces.load(file, model=ModelLayout.of(LAYERS, first_moe_layer=DENSE, num_experts=EXPERTS))
    assert isinstance(read, LoadCounts)
    assert list(read.layer_ids) == list(range(DENSE, LAYERS))
    assert read.load.tolist() == statistics()[DENSE:].tolist()


def test_a_row_per_moe_layer_is_rejected(planner: Any, tmp_path: Path) -> None:
    """LMDeploy asks for a row per layer of the model, dense ones too."""
    (tmp_path / "statistics.json").write_text(json.dumps(statistics()[DENSE:].tolist()))
    with pytest.raises(AssertionError, match="Shape"):
        planner.EPLBMetadata.init(RANKS, EXPERTS, LAYERS)


def test_its_plan_is_that_of_our_eplb(planner: Any, tmp_path: Path) -> None:
    """From one matrix of loads, LMDeploy and our `eplb` place the experts alike."""
    from solvers.methods.eplb.solver import rebalance

    load = np.random.default_rng(2).permutation(LAYERS * EXPERTS).reshape(LAYERS, EXPERTS) + 1.0
    (tmp_path / "statistics.json").write_text(json.dumps(load.tolist()))
    made = planner.EPLBMetadata.init(RANKS, EXPERTS, LAYERS)
    ours = rebalance(load, num_slots=EXPERTS + REDUNDANT, num_groups=1, num_nodes=1, num_gpus=RANKS)
    assert made.physical_to_logical_map.tolist() == ours.tolist()


def test_responses_are_read(tmp_path: Path) -> None:
    """A response that LMDeploy's own class makes is read as the experts of its tokens."""
    protocol = module("lmdeploy.serve.openai.protocol")
    ids = np.random.default_rng(3).random((7, LAYERS, EXPERTS)).argsort(axis=2)[..., :2]
    made = protocol.GenerateReqOutput(
        text="x",
        output_ids=[1, 2, 3],
        meta_info=protocol.GenerateReqMetaOutput(
            finish_reason={"type": "stop"}, prompt_tokens=5, completion_tokens=3, routed_experts=ids.tolist()
        ),
    )
    file = tmp_path / "responses.jsonl"
    file.write_text(made.model_dump_json() + "\n")
    trace = traces.load(file, num_experts=EXPERTS)
    assert isinstance(trace, Trace)
    assert trace.provenance.format == "lmdeploy_routed_experts"
    assert np.concatenate([batch.topk_ids for batch in trace.batches()]).tolist() == ids.tolist()


@pytest.mark.parametrize("words", commands("lmdeploy", "lmdeploy serve api_server"), ids=" ".join)
def test_the_page_launches(words: list[str]) -> None:
    """Each command line of the page goes through LMDeploy's own parser."""
    serve, command = module("lmdeploy.cli.serve"), module("lmdeploy.cli.cli")
    if "api_server" not in serve.SubCliServe.subparsers.choices:
        serve.SubCliServe.add_parsers()
    made = command.CLI.parser.parse_args(["serve", "api_server", *words])
    assert (made.model_path, made.backend, made.ep) == ("MODEL", "pytorch", 8)
    assert made.enable_eplb != made.enable_return_routed_experts


def test_the_page_names_its_settings() -> None:
    """The variables that the page exports are those that LMDeploy reads, and its request has those fields."""
    page = (PAGES / "lmdeploy.md").read_text(encoding="utf-8")
    code = (engine("lmdeploy") / "pytorch" / "envs.py").read_text(encoding="utf-8")
    names = set(re.findall(r"\bLMDEPLOY_EPLB_\w+", page))
    assert len(names) == 4
    assert all(f"'{name}'" in code for name in names)
    fields = set(module("lmdeploy.serve.openai.protocol").GenerateReqInput.model_fields)
    assert {"prompt", "max_tokens", "return_routed_experts"} <= fields
