"""vllm-ascend loads our maps by its own functions, and we read the maps that it makes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from placement import Plan
from placement.exports import Context, Document, export_named
from tests.engines.harness import EXPERTS, GPUS, MODEL, SLOTS, own

NAMES = ("expert_file_to_tensor", "generate_global_placement", "init_eplb_config", "generate_log2phy_map")


@pytest.fixture
def utils(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return vllm-ascend's functions for expert maps; tensors stay where they are."""
    torch: Any = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "npu", lambda tensor: tensor, raising=False)
    file = "vllm_ascend/eplb/core/eplb_utils.py"
    return own(file, *NAMES, json=json, logger=logging.getLogger(), determine_expert_map=None)


def config(path: Path) -> Any:
    """Return the engine's settings for a map."""
    return SimpleNamespace(expert_map_path=str(path), dynamic_eplb=False, num_redundant_experts=0)


def test_it_loads_our_map(utils: Any, tmp_path: Path, plan: Plan) -> None:
    """Every rank sends each expert to a slot that holds it, and holds itself what the plan says."""
    file = tmp_path / "map.json"
    file.write_bytes(export_named("vllm_ascend").write(plan, Context(model=MODEL)).content)
    for row in range(4):
        slots = plan.physical_to_logical_map[row]
        for rank in range(GPUS):
            moe = SimpleNamespace(num_experts=EXPERTS, ep_size=GPUS, ep_rank=rank)
            everyone, own_map, sent, redundant = utils.init_eplb_config(config(file), row, moe)
            assert redundant == GPUS * SLOTS - EXPERTS
            assert slots[sent.numpy()].tolist() == list(range(EXPERTS))
            held = slots.reshape(GPUS, SLOTS)[rank]
            assert np.flatnonzero(own_map.numpy() >= 0).tolist() == sorted(held.tolist())
            assert everyone.shape == (GPUS, EXPERTS)


def test_we_read_its_placement(utils: Any) -> None:
    """A map with the placement that vllm-ascend starts with is read as that placement."""
    place = utils.generate_global_placement(EXPERTS, GPUS, GPUS * SLOTS - EXPERTS, 0)
    devices = [{"device_id": rank, "device_expert": row} for rank, row in enumerate(place.tolist())]
    layers = [{"layer_id": layer, "device_count": GPUS, "device_list": devices} for layer in range(4)]
    document = Document("map.json", json.dumps({"moe_layer_count": 4, "layer_list": layers}).encode())
    read = export_named("vllm_ascend").read(document, Context(model=MODEL))
    assert read.physical_to_logical_map.tolist() == [place.flatten().tolist()] * 4


def test_a_shared_expert_has_the_next_number(utils: Any) -> None:
    """With `mix_placement`, the engine numbers shared experts on from E, one on every rank."""
    place = utils.generate_global_placement(EXPERTS + 1, GPUS, 0, 1)
    assert place.shape == (GPUS, EXPERTS // GPUS + 1)
    assert place[:, -1].tolist() == [EXPERTS] * GPUS


def test_its_settings_take_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`eplb_config` of the page goes through the engine's own class; what it does not know is refused there."""
    import os

    from tests.engines.recipes import commands

    made = own("vllm_ascend/ascend_config.py", "EplbConfig", logger=logging.getLogger(), os=os)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DYNAMIC_EPLB", "true")
    Path("map.json").write_text("{}")
    given = [
        json.loads(words[words.index("--additional-config") + 1])["eplb_config"]
        for words in commands("vllm_ascend", "vllm serve")
        if "--additional-config" in words
    ]
    assert len(given) >= 2
    for settings in given:
        made.EplbConfig(settings)
    with pytest.raises(ValueError, match="no attribute"):
        made.EplbConfig({"load_collection_phase": "prefill"})
