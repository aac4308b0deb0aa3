#!/usr/bin/env bash
# With mix_placement, vllm-ascend's maps carry the shared expert as id E, on every rank, and E counts one more.
#
# Surprising:  A map that records what runs has an id beyond the routed experts in each rank's last slot. The engine's
#              own count of experts includes it: with E routed experts, it asks for maps of E + 1. A map of the routed
#              ones alone is loaded all the same, with -1 redundant experts, and no rank has the shared expert.
# Versions:    vllm-ascend==0.23.0, torch==2.13.0 (any build), numpy==2.4.6
# Why:         Who reads such a map as routed experts plans for an expert that no router chooses; who writes one
#              without that id leaves a rank without the shared expert.
# Seen:        2026-11-30
#
# vllm-ascend's module runs as it is in the wheel; what it imports, and the copy to the device, are stand-ins.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --no-compile numpy==2.4.6 torch==2.13.0
env/bin/pip download -q --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux_2_34_x86_64 \
    --platform manylinux_2_28_x86_64 vllm-ascend==0.23.0
unzip -q vllm_ascend-*.whl vllm_ascend/eplb/core/eplb_utils.py
mv vllm_ascend/eplb/core/eplb_utils.py .
cat > finding.py <<'PYTHON'
import json
import logging
import sys
from types import ModuleType, SimpleNamespace

import torch

ROUTED, RANKS = 16, 4


def stand_in(name, **members):
    module = sys.modules[name] = ModuleType(name)
    vars(module).update(members)


stand_in("vllm.logger", logger=logging.getLogger())
stand_in("vllm.model_executor.layers.fused_moe.expert_map_manager", determine_expert_map=None)
torch.Tensor.npu = lambda tensor: tensor

from eplb_utils import generate_global_placement, init_eplb_config

settings = SimpleNamespace(expert_map_path=None, dynamic_eplb=True, num_redundant_experts=0)
model = SimpleNamespace(num_experts=ROUTED + 1, ep_size=RANKS, ep_rank=0)  # as the layer counts them
everyone, _, _, redundant = init_eplb_config(settings, 0, model, mix_placement=True, num_shared_experts=1)
place = generate_global_placement(ROUTED + 1, RANKS, 0, 1)
holders = [rank for rank in range(RANKS) if everyone[rank, ROUTED] >= 0]
print(f"{ROUTED} routed experts on {RANKS} ranks: {place.tolist()}")
print(f"ranks with id {ROUTED}: {holders}; redundant experts counted: {redundant}")

rows = torch.arange(ROUTED).reshape(RANKS, -1).tolist()
devices = [{"device_id": rank, "device_expert": row} for rank, row in enumerate(rows)]
with open("map.json", "w") as file:
    json.dump({"moe_layer_count": 1, "layer_list": [{"layer_id": 0, "device_list": devices}]}, file)
settings.expert_map_path = "map.json"
everyone, _, _, fewer = init_eplb_config(settings, 0, model, mix_placement=True, num_shared_experts=1)
print(f"a map of the routed experts alone: loaded, redundant experts {fewer}, ranks with id {ROUTED}:",
      [rank for rank in range(RANKS) if everyone[rank, ROUTED] >= 0])
assert holders == list(range(RANKS)) and redundant == RANKS - 1, "the behaviour has changed"
assert fewer == -1 and (everyone[:, ROUTED] < 0).all(), "the behaviour has changed"
PYTHON
env/bin/python finding.py
