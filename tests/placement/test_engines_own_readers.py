"""Our files through the engines' own readers, where those run without a GPU.

They are read from the folder in ``MOE_PLACEMENT_ENGINES``, where wheels were unpacked without what they depend on
(``pip install --no-deps --target FOLDER sglang deepspeed``); PyTorch has to be installed. What the readers import of
the rest of their engine is replaced by stand-ins that hold the configuration.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement import Plan
from placement.exports import Context, Document, export_named
from traces import ModelLayout

pytestmark = pytest.mark.slow

ENGINES = os.environ.get("MOE_PLACEMENT_ENGINES")
EXPERTS, GPUS, SLOTS = 16, 4, 5
MODEL = ModelLayout.of(5, first_moe_layer=1, num_experts=EXPERTS)


@pytest.fixture
def plan() -> Plan:
    """Return a plan with a copy per GPU, other ones in each layer."""
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(4):
        parts = np.array_split(rng.permutation(EXPERTS), GPUS)
        rows.append(np.concatenate([[*part, parts[gpu - 1][0]] for gpu, part in enumerate(parts)]))
    return Plan(
        physical_to_logical_map=np.array(rows),
        layer_ids=np.arange(1, 5),
        num_experts=EXPERTS,
        num_gpus=GPUS,
        slots_per_gpu=SLOTS,
        gpus_per_node=(GPUS,),
    )


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path | None = None, **content: Any) -> None:
    """Put a module in place of one of the engine's; with a folder, it is a package whose other modules are real."""
    module = types.ModuleType(name)
    module.__dict__.update(content)
    if folder is not None:
        module.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, name, module)


def engine(name: str) -> Path:
    """Return the folder of an engine's package, or skip."""
    if ENGINES is None:
        pytest.skip("engines are not here; set MOE_PLACEMENT_ENGINES to a folder with their unpacked wheels")
    pytest.importorskip("torch", reason="the engines' readers need PyTorch")
    folder = Path(ENGINES) / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not in the folder of MOE_PLACEMENT_ENGINES")
    return folder


def sglang_reader(monkeypatch: pytest.MonkeyPatch, file: str, dispatch: str) -> Any:
    """Return SGLang's module for expert locations, configured to read `file`."""
    folder = engine("sglang")
    moe = types.SimpleNamespace(
        init_expert_location=file,
        ep_num_redundant_experts=GPUS * SLOTS - EXPERTS,
        ep_join_mode=None,
        ep_dispatch_algorithm=dispatch,
        moe_a2a_backend="none",
    )
    parallel = types.SimpleNamespace(ep_size=GPUS, nnodes=1, elastic_ep_initial_size=None)
    location: dict[str, Any] = {"num_layers": MODEL.num_layers, "num_logical_experts": EXPERTS}

    class Model:
        """Stands in for the model's class."""

        @staticmethod
        def get_model_config_for_expert_location(config: Any) -> Any:
            return types.SimpleNamespace(num_groups=None, **location)

    for name, part in (("sglang", ""), ("sglang.srt", "srt"), ("sglang.srt.eplb", "srt/eplb")):
        stand_in(monkeypatch, name, folder / part)
    stand_in(
        monkeypatch,
        "sglang.srt.runtime_context",
        get_device=lambda: types.SimpleNamespace(device="cpu"),
        get_exec=lambda: types.SimpleNamespace(moe=moe),
        get_parallel=lambda: parallel,
        get_resources=lambda: types.SimpleNamespace(),
    )
    stand_in(monkeypatch, "sglang.srt.elastic_ep")
    stand_in(monkeypatch, "sglang.srt.elastic_ep.elastic_ep", elastic_expanded_world_enabled=lambda: False)
    stand_in(monkeypatch, "sglang.srt.model_loader", get_model_architecture=lambda config: (Model, "Model"))
    monkeypatch.delitem(sys.modules, "sglang.srt.eplb.expert_location", raising=False)
    return importlib.import_module("sglang.srt.eplb.expert_location")


@pytest.mark.parametrize("dispatch", ["static", "dynamic"])
def test_sglang_reads_our_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plan: Plan, dispatch: str) -> None:
    """SGLang holds the plan's map in the model's layers, finds every copy, and sends to the copy on its own GPU."""
    file = tmp_path / "location.json"
    file.write_bytes(export_named("sglang").write(plan, Context(model=MODEL)).content)
    reader = sglang_reader(monkeypatch, str(file), dispatch)
    config = types.SimpleNamespace(hf_config=None)
    read = reader.compute_initial_expert_location_metadata(config, moe_ep_rank=2)
    assert read.num_layers == MODEL.num_layers
    assert read.physical_to_logical_map[1:].tolist() == plan.physical_to_logical_map.tolist()
    assert read.logical_to_all_physical_map_num_valid[1:].tolist() == plan.copies.tolist()
    assert read.num_local_physical_experts == SLOTS
    if dispatch == "static":
        chosen = read.logical_to_rank_dispatch_physical_map[1:].numpy()
        for layer, expert in np.argwhere(plan.copies_on_gpu[:, :, 2] == 1):
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
            reader.compute_initial_expert_location_metadata(types.SimpleNamespace(hf_config=None), moe_ep_rank=0)


def test_deepspeed_reads_our_file_and_we_its(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    """DeepSpeed validates our descriptor and finds each rank's experts; the one that it makes comes back as a plan."""
    folder = engine("deepspeed")
    if not (folder / "checkpoint" / "autoep_affine.py").is_file():
        pytest.skip("this DeepSpeed has no placement descriptors; 0.19.8 does")
    for name, part in (("deepspeed", ""), ("deepspeed.checkpoint", "checkpoint")):
        stand_in(monkeypatch, name, folder / part)
    for name in ("affine", "constants", "autoep_affine"):
        monkeypatch.delitem(sys.modules, f"deepspeed.checkpoint.{name}", raising=False)
    reader = importlib.import_module("deepspeed.checkpoint.autoep_affine")
    export = export_named("deepspeed")
    for row, layer in enumerate(plan.layer_ids.tolist()):
        descriptor = json.loads(export.write(plan, Context(layer=layer)).content)
        reader.validate_autoep_placement_descriptor(descriptor)
        mine = plan.physical_to_logical_map[row].reshape(GPUS, SLOTS).tolist()
        assert [reader.autoep_experts_for_rank(descriptor, rank) for rank in range(GPUS)] == mine
    made = reader.make_autoep_placement_descriptor(3, [[2, 0], [1], [0, 1]])
    back = export.read(Document("f", json.dumps(made).encode()))
    assert back.physical_to_logical_map.tolist() == [[2, 0, 1, -1, 0, 1]]
    broken = json.loads(json.dumps(made).replace("[2, 0]", "[0, 0]"))
    assert export.check(Document("f", json.dumps(broken).encode()))[0].found
    with pytest.raises(ValueError, match="duplicate"):
        reader.validate_autoep_placement_descriptor(broken)
