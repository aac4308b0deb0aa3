#!/usr/bin/env bash
# DeepSpeed's `expert_placement` says how a checkpoint is stored; the running model is contiguous whatever it says.
#
# Surprising:  AutoEP checkpoints have a placement descriptor per layer, checked for ranks, replicas and coverage. An
#              AutoEP layer makes its own, contiguous one, and takes no other; a stored one is only used to put
#              experts back in order. So another descriptor moves no expert, and one that does not fit the stored
#              weights exchanges experts.
# Versions:    deepspeed==0.19.8, transformers==5.24.0, torch==2.13.0 (any build), numpy==2.4.6,
#              einops==0.8.2, hjson==3.1.0, msgpack==1.2.4, psutil==7.2.2,
#              py-cpuinfo==9.0.0, pydantic==2.14.3, setuptools==84.2.1
# Why:         A plan can't be loaded through it: the experts of the model have to be renumbered.
# Seen:        2026-11-30
#
# DeepSpeed runs as it is in its source distribution.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --no-compile numpy==2.4.6 torch==2.13.0 transformers==5.24.0 \
    einops==0.8.2 hjson==3.1.0 msgpack==1.2.4 psutil==7.2.2 \
    py-cpuinfo==9.0.0 pydantic==2.14.3 setuptools==84.2.1
env/bin/pip download -q --no-deps --no-build-isolation --no-binary=:all: deepspeed==0.19.8
tar -xzf deepspeed-*.tar.gz --strip-components=1 --wildcards '*/deepspeed/*'
cat > finding.py <<'PYTHON'
import inspect

import torch
from deepspeed.checkpoint import autoep_affine as affine
from deepspeed.module_inject import auto_ep_layer
from deepspeed.module_inject.auto_ep import AutoEP
from deepspeed.module_inject.auto_ep_config import AutoEPConfig
from transformers import MixtralConfig, MixtralForCausalLM

EXPERTS, RANKS = 8, 4
config = MixtralConfig(
    vocab_size=20, hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, num_local_experts=EXPERTS,
)
model = MixtralForCausalLM(config)
source = model.model.layers[0].mlp
down = source.experts.down_proj.detach().clone()
settings = AutoEPConfig(enabled=True, autoep_size=RANKS)
(spec,) = AutoEP(model, settings).ep_parser()
held = []
for rank in range(RANKS):
    layer = auto_ep_layer.AutoEPMoELayer(spec, source, RANKS, rank, settings)
    mine = layer.experts.w2.detach()
    held.append([next(e for e in range(EXPERTS) if torch.equal(down[e].to(w.dtype), w)) for w in mine])
print(f"experts of ranks 0 to 3: {held}")
takes = [name for name in inspect.signature(auto_ep_layer.AutoEPMoELayer.__init__).parameters if "placement" in name]
print(f"parameters of the layer that name a placement: {takes}")
plan = affine.make_autoep_placement_descriptor(EXPERTS, [[7, 0], [6, 1], [5, 2], [4, 3]])
print(f"a valid descriptor: rank 0 has {affine.autoep_experts_for_rank(plan, 0)}; nothing takes it")
assert held == [[0, 1], [2, 3], [4, 5], [6, 7]] and not takes, "the behaviour has changed"
PYTHON
env/bin/python finding.py
