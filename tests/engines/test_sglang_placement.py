"""Our placements through SGLang's own `compute_initial_expert_location_metadata`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from placement import Plan
from placement.exports import Context, Document, export_named
from tests.engines.harness import EXPERTS, GPUS, MODEL, SLOTS, engine, stand_in


def sglang_reader(monkeypatch: pytest.MonkeyPatch, file: str, dispatch: str) -> Any:
    """Return SGLang's module for expert locations, configured to read `file`."""
    folder = engine("sglang")
    moe = SimpleNamespace(
        init_expert_location=file,
        ep_num_redundant_experts=GPUS * SLOTS - EXPERTS,
        ep_join_mode=None,
        ep_dispatch_algorithm=dispatch,
        moe_a2a_backend="none",
    )
    parallel = SimpleNamespace(ep_size=GPUS, nnodes=1, elastic_ep_initial_size=None)
    location: dict[str, Any] = {"num_layers": MODEL.num_layers, "num_logical_experts": EXPERTS}

    class Model:
        """Stands in for the model's class."""

        @staticmethod
        def get_model_config_for_expert_location(config: Any) -> Any:
            return SimpleNamespace(num_groups=None, **location)

    for name, part in (("sglang", ""), ("sglang.srt", "srt"), ("sglang.srt.eplb", "srt/eplb")):
        stand_in(monkeypatch, name, folder / part)
    stand_in(
        monkeypatch,
        "sglang.srt.runtime_context",
        get_device=lambda: SimpleNamespace(device="cpu"),
        get_exec=lambda: SimpleNamespace(moe=moe),
        get_parallel=lambda: parallel,
        get_resources=lambda: SimpleNamespace(),
    )
    stand_in(monkeypatch, "sglang.srt.elastic_ep")
    stand_in(monkeypatch, "sglang.srt.elastic_ep.elastic_ep", elastic_expanded_world_enabled=lambda: False)
    stand_in(monkeypatch, "sglang.srt.model_loader", get_model_architecture=lambda config: (Model, "Model"))
    monkeypatch.delitem(sys.modules, "sglang.srt.eplb.expert_location", raising=False)
    return importlib.import_module("sglang.srt.eplb.expert_location")


@pytest.mark.parametrize("suffix", [".json", ".pt"])
@pytest.mark.parametrize("dispatch", ["static", "dynamic"])
def test_sglang_reads_our_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plan: Plan, dispatch: str, suffix: str
) -> None:
    """SGLang holds the plan's map in the model's layers, finds every replica, and sends to that on its own GPU."""
    file = tmp_path / f"location{suffix}"
    written = export_named("sglang").write(plan, Context(model=MODEL)).content
    if suffix == ".json":
        file.write_bytes(written)
    else:
        torch: Any = pytest.importorskip("torch")
        torch.save({key: torch.tensor(value) for key, value in json.loads(written).items()}, file)
    reader = sglang_reader(monkeypatch, str(file), dispatch)
    config = SimpleNamespace(hf_config=None)
    read = reader.compute_initial_expert_location_metadata(config, moe_ep_rank=2)
    assert read.num_layers == MODEL.num_layers
    assert read.physical_to_logical_map[1:].tolist() == plan.physical_to_logical_map.tolist()
    assert read.logical_to_all_physical_map_num_valid[1:].tolist() == plan.replicas.tolist()
    assert read.num_local_physical_experts == SLOTS
    if dispatch == "static":
        chosen = read.logical_to_rank_dispatch_physical_map[1:].numpy()
        for layer, expert in np.argwhere(plan.replicas_on_gpu[:, :, 2] == 1):
            assert chosen[layer, expert] // SLOTS == 2


def test_sglang_rejects_what_we_refuse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plan: Plan) -> None:
    """Another key, and a dense layer without filler, fail in SGLang as our check says."""
    export = export_named("sglang")
    content = json.loads(export.write(plan, Context(model=MODEL)).content)
    bare = [[0] * (GPUS * SLOTS), *content["physical_to_logical_map"][1:]]
    for bad in (content | {"note": "x"}, {"physical_to_logical_map": bare}):
        file = tmp_path / "location.json"
        file.write_text(json.dumps(bad))
        assert export.check(Document.of(file), Context(model=MODEL, gpus_per_node=(GPUS,)))[0].found
        reader = sglang_reader(monkeypatch, str(file), "static")
        with pytest.raises((TypeError, ZeroDivisionError)):
            reader.compute_initial_expert_location_metadata(SimpleNamespace(hf_config=None), moe_ep_rank=0)
