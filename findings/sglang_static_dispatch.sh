#!/usr/bin/env bash
# On two nodes, SGLang's own dispatch of replicas unbalances what its EPLB has balanced.
#
# Surprising:  With an all-to-all back end and a placement, `--ep-dispatch-algorithm` resolves to `static`. A rank then
#              uses, for good, the first replica of its own, else the first one on its node if there are others on other
#              nodes. Further replicas of a node serve their own rank only, twins on a rank nobody. EPLB packed the
#              replicas as if each took an equal share of its expert's tokens.
# Versions:    sglang==0.5.23, torch==2.13.0 (any build), numpy==2.4.6
# Why:         Who places experts for SGLang on several nodes must balance what `static` does; a plan that is perfect
#              by equal shares is not, and a second replica on a node takes off only the tokens of its own rank.
# Seen:        2026-11-29
#
# SGLang's modules run as they are in the wheel; only its server context (sizes, flags) is a stand-in.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --no-compile numpy==2.4.6 torch==2.13.0
env/bin/pip download -q --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux_2_34_x86_64 \
    sglang==0.5.23
unzip -q sglang-*.whl 'sglang/srt/eplb/*'
cat > finding.py <<'PYTHON'
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import torch

RANKS, NODES, EXPERTS, REDUNDANT, LAYERS, TOKENS = 16, 2, 256, 32, 8, 10**6


def stand_in(name, **members):
    module = sys.modules[name] = ModuleType(name)
    vars(module).update(members)


moe = SimpleNamespace(
    moe_a2a_backend="deepep", ep_dispatch_algorithm="static", eplb_algorithm="auto", ep_join_mode=None,
    ep_num_redundant_experts=REDUNDANT,
)
parallel = SimpleNamespace(ep_size=RANKS, nnodes=NODES, elastic_ep_initial_size=None)
model = SimpleNamespace(
    get_model_config_for_expert_location=lambda _: SimpleNamespace(
        num_layers=LAYERS, num_logical_experts=EXPERTS, num_groups=None
    )
)
stand_in(
    "sglang.srt.runtime_context", get_exec=lambda: SimpleNamespace(moe=moe), get_parallel=lambda: parallel,
    get_device=lambda: SimpleNamespace(device="cpu"), get_resources=lambda: None,
)
stand_in("sglang.srt.elastic_ep", __path__=[])
stand_in("sglang.srt.elastic_ep.elastic_ep", elastic_expanded_world_enabled=lambda: False)
stand_in("sglang.srt.model_loader", get_model_architecture=lambda _: (model, None))

from sglang.srt.eplb.expert_location import ExpertLocationMetadata

rng = np.random.default_rng(0)
popularity = rng.permuted(np.tile(1 / np.arange(1, EXPERTS + 1) ** 0.8, (LAYERS, 1)), axis=1)
load = rng.poisson(TOKENS * popularity / popularity.sum(1, keepdims=True))

torch.distributed.get_rank = lambda: 0
plan = ExpertLocationMetadata.init_by_eplb(SimpleNamespace(hf_config=None), torch.tensor(load)).physical_to_logical_map
slots = plan.numpy()
rank_of = np.arange(slots.shape[1]) // (slots.shape[1] // RANKS)


def max_over_mean(tokens):
    by_rank = np.array([np.bincount(rank_of, row, RANKS) for row in tokens])
    return (by_rank.max(1) / by_rank.mean(1)).mean()


replicas = np.array([np.bincount(row, minlength=EXPERTS) for row in slots])
equal = np.take_along_axis(load / replicas, slots, 1)
static = np.zeros(slots.shape)
for rank in range(RANKS):  # each rank has an equal part of every expert's tokens
    own = ExpertLocationMetadata.init_by_mapping(SimpleNamespace(hf_config=None), plan, moe_ep_rank=rank)
    for layer, used in enumerate(own.logical_to_rank_dispatch_physical_map.numpy()):
        static[layer, used] += load[layer] / RANKS
assert np.isclose(static.sum(), load.sum()) and np.isclose(equal.sum(), load.sum())

idle = np.sum(static == 0)
print(f"{EXPERTS} experts, {REDUNDANT} redundant, {RANKS} ranks on {NODES} nodes, placed by SGLang's own EPLB")
print(f"max/mean of ranks: {max_over_mean(equal):.3f} by equal shares, {max_over_mean(static):.3f} as dispatched")
print(f"idle slots: {idle} of {static.size}")
assert max_over_mean(equal) < 1.01 and max_over_mean(static) > 1.2 and idle > 0, "the behaviour has changed"
PYTHON
env/bin/python finding.py
