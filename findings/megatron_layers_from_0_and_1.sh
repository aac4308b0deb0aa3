#!/usr/bin/env bash
# Megatron's router traces count layers from 0 in training and from 1 in inference, in files that look the same.
#
# Surprising:  Both write router_trace_rank0.jsonl with block "decoder". The hooks of training take the layer from the
#              module's name (decoder.layers.0); inference passes the routers' `layer_number`, which begins with 1.
# Versions:    megatron-core==0.19.2, torch==2.13.0 (any build), numpy==2.4.6
# Why:         A plan from an inference trace is one layer off when read as a training trace, and no id tells it.
# Seen:        2026-11-30
#
# Megatron's modules run as they are in the wheel, which asks for Python 3.12; these files do on 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --no-compile numpy==2.4.6 torch==2.13.0
env/bin/pip download -q --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \
    megatron-core==0.19.2
unzip -q megatron_core-*.whl 'megatron/core/transformer/moe/router_*.py' \
    megatron/core/inference/text_generation_controllers/text_generation_controller.py
mv megatron/core/transformer/moe/router_*.py . && mv megatron/core/inference/text_generation_controllers/*.py text.py
cat > finding.py <<'PYTHON'
import json
import pathlib
import re
from types import SimpleNamespace

import torch
from router_trace import RouterTracer

torch.cuda.is_current_stream_capturing = lambda: False
ids = torch.tensor([[0, 3], [2, 1]])
routers = [SimpleNamespace(topk=2, layer_number=number) for number in (1, 2, 3)]  # as TransformerLayer numbers them


def layers(folder):
    return [json.loads(line)["layer"] for line in (pathlib.Path(folder) / "router_trace_rank0.jsonl").open()]


training = RouterTracer("training", 1, 0, training_mode=True)
for index, router in enumerate(routers):
    training.make_hook(f"decoder.layers.{index}.mlp.router")(router, (), (None, ids))
training.advance_step(1)

# What the text generation controller does: the numbers come from the routers.
source = pathlib.Path("text.py").read_text()
passed = re.search(r"layer_ids = \[\s*r\.layer_number\s*for r in RouterReplay\.global_router_replay_", source)
assert passed, "the behaviour has changed"
inference = RouterTracer("inference", 1, 0)
inference.record_indices(torch.stack([ids] * 3, dim=1), layer_ids=[router.layer_number for router in routers])
inference.advance_step()
keys = [json.loads((pathlib.Path(name) / "router_trace_rank0.jsonl").open().readline()).keys()
        for name in ("training", "inference")]
print(f"training: layers {layers('training')}; inference: layers {layers('inference')}")
print(f"same fields: {keys[0] == keys[1]}")
assert layers("training") == [0, 1, 2] and layers("inference") == [1, 2, 3], "the behaviour has changed"
assert keys[0] == keys[1], "the behaviour has changed"
PYTHON
env/bin/python finding.py
