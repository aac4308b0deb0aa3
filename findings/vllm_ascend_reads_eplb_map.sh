#!/usr/bin/env bash
# vllm-ascend loads a map of vLLM's EPLB so that tokens reach wrong experts, and passes by replicas on the own rank.
#
# Surprising:  1. EPLB may put two replicas of an expert on one rank. vllm-ascend takes such a map (`expert_map_path`)
#              without a word, counts the slots per rank by the distinct experts of rank 0, and numbers all slots by
#              that count: with a twin on rank 0, the numbers of the other ranks are off.
#              2. A rank uses replica number (rank mod replicas) of each expert for good: one in its own memory is
#              passed by if its number is another, and the token travels.
# Versions:    vllm-ascend==0.23.0, vllm==0.33.0, torch==2.13.0 (any build), numpy==2.4.6
# Why:         A map must have distinct experts on each rank, which no error says; and a replica on every rank that
#              needs one saves no traffic here.
# Seen:        2026-11-29
#
# Both engines' modules run as they are in the wheels; what they import, and the copy to the device, are stand-ins.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --no-compile numpy==2.4.6 torch==2.13.0
env/bin/pip download -q --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux_2_28_x86_64 \
    --platform manylinux_2_34_x86_64 vllm==0.33.0 vllm-ascend==0.23.0
unzip -q vllm-*.whl vllm/distributed/eplb/policy/abstract.py vllm/distributed/eplb/policy/default.py
unzip -q vllm_ascend-*.whl vllm_ascend/eplb/core/eplb_utils.py
cat > finding.py <<'PYTHON'
import json
import logging
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import torch

RANKS, PER_RANK, EXPERTS = 8, 6, 32


def stand_in(name, **members):
    module = sys.modules[name] = ModuleType(name)
    vars(module).update(members)


stand_in("vllm.logger", logger=logging.getLogger())
stand_in("vllm.model_executor.layers.fused_moe.expert_map_manager", determine_expert_map=None)
torch.Tensor.npu = lambda tensor: tensor

from vllm.distributed.eplb.policy.default import DefaultEplbPolicy
from vllm_ascend.eplb.core.eplb_utils import init_eplb_config


def dispatched(slots):
    """Return the slot that each rank (R, E) uses, by the engine's own loader, for one layer's map (R, slots)."""
    devices = [{"device_id": rank, "device_expert": row} for rank, row in enumerate(slots.tolist())]
    layers = [{"layer_id": 0, "device_count": RANKS, "device_list": devices}]
    with open("map.json", "w") as file:
        json.dump({"moe_layer_count": 1, "layer_list": layers}, file)
    config = SimpleNamespace(expert_map_path="map.json", dynamic_eplb=False, num_redundant_experts=0)
    ranks = [SimpleNamespace(num_experts=EXPERTS, ep_size=RANKS, ep_rank=rank) for rank in range(RANKS)]
    return np.stack([init_eplb_config(config, 0, rank)[2].numpy() for rank in ranks])


# One expert takes about half of the tokens: EPLB gives it more replicas than there are ranks.
load = torch.ones(1, EXPERTS)
load[0, 5] = EXPERTS
eplb = DefaultEplbPolicy.rebalance_experts(load, RANKS * PER_RANK, 1, 1, RANKS).numpy().reshape(RANKS, PER_RANK)
twins = sum(PER_RANK - len(set(row)) for row in eplb.tolist())
used = dispatched(eplb)
wrong = np.mean(eplb.ravel()[used] != np.arange(EXPERTS))
print(f"vLLM's EPLB: {twins} slots repeat an expert of their rank; rank 0 holds {sorted(eplb[0].tolist())}")
print(f"vllm-ascend with this map: {wrong:.0%} of the (rank, expert) pairs lead to another expert's slot")

# As many slots, distinct on each rank: expert 5 is on every rank, the others have one or two replicas.
others = np.resize(np.delete(np.arange(EXPERTS), 5), RANKS * (PER_RANK - 1)).reshape(RANKS, PER_RANK - 1)
distinct = np.insert(others, 0, 5, axis=1)
assert all(len(set(row)) == PER_RANK for row in distinct.tolist())
used = dispatched(distinct)
assert (distinct.ravel()[used] == np.arange(EXPERTS)).all()
cases = [
    (rank, expert)
    for rank, row in enumerate(distinct.tolist())
    for expert in row
    if 1 < np.sum(distinct == expert) < RANKS
]
passed = np.mean([used[rank, expert] // PER_RANK != rank for rank, expert in cases])
print(f"distinct experts on each rank: no wrong slot; {passed:.0%} of the replicas on the own rank are passed by")
assert twins and len(set(eplb[0].tolist())) < PER_RANK and wrong > 0.1 and passed > 0.2, "the behaviour has changed"
PYTHON
env/bin/python finding.py
