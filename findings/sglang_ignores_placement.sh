#!/usr/bin/env bash
# SGLang reads a placement for Mixtral, Llama 4, OLMoE and others, and then ignores it without a word.
#
# Surprising:  `--init-expert-location` asks the model's class for its layers (get_model_config_for_expert_location). A
#              class without that method gets no placement at all: the file is parsed, nothing is logged, the server
#              starts with its own layout. A file with any number of layers and experts will do.
# Versions:    sglang==0.5.23, torch==2.13.0 (any build), numpy==2.4.6
# Why:         A plan for such a model costs redundant experts and changes nothing.
# Seen:        2026-11-30
#
# SGLang's module runs as it is in the wheel; its server context is a stand-in. Classes are read, not imported.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --no-compile numpy==2.4.6 torch==2.13.0
env/bin/pip download -q --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux_2_34_x86_64 \
    --platform manylinux_2_28_x86_64 sglang==0.5.23
unzip -q sglang-*.whl 'sglang/srt/eplb/*' 'sglang/srt/models/*'
cat > finding.py <<'PYTHON'
import json
import logging
import pathlib
import sys
from types import ModuleType, SimpleNamespace

import torch

NAMES = ["mixtral", "llama4", "olmoe", "gemma4_causal", "deepseek_v2", "qwen3_moe"]


def stand_in(name, **members):
    module = sys.modules[name] = ModuleType(name)
    vars(module).update(members)


moe = SimpleNamespace(
    init_expert_location="map.json", ep_join_mode=None, ep_num_redundant_experts=0, ep_dispatch_algorithm="static",
    moe_a2a_backend="deepep",
)
stand_in(
    "sglang.srt.runtime_context", get_exec=lambda: SimpleNamespace(moe=moe),
    get_parallel=lambda: SimpleNamespace(ep_size=2, nnodes=1, elastic_ep_initial_size=None),
    get_device=lambda: SimpleNamespace(device="cpu"), get_resources=lambda: None,
)
stand_in("sglang.srt.elastic_ep", __path__=[])
stand_in("sglang.srt.elastic_ep.elastic_ep", elastic_expanded_world_enabled=lambda: False)
logging.basicConfig(level=logging.WARNING, filename="log.txt")

from sglang.srt.eplb.expert_location import compute_initial_expert_location_metadata

with open("map.json", "w") as file:
    json.dump({"physical_to_logical_map": [[3, 2, 1, 0]]}, file)


def started(model_class):
    """Return what SGLang starts with for a class; 1 layer, 4 experts."""
    stand_in("sglang.srt.model_loader", get_model_architecture=lambda _: (model_class, None))
    return compute_initial_expert_location_metadata(SimpleNamespace(hf_config=None), moe_ep_rank=0)


layers = SimpleNamespace(num_layers=1, num_logical_experts=4, num_groups=None)
method = staticmethod(lambda config: layers)
with_method = started(type("With", (), {"get_model_config_for_expert_location": method}))
without = started(type("Without", (), {}))
has = {name: "get_model_config_for_expert_location" in pathlib.Path(f"sglang/srt/models/{name}.py").read_text()
       for name in NAMES}
print(f"a class with the method starts with {with_method.physical_to_logical_map.tolist()}, one without with {without}")
print(f"logged: {pathlib.Path('log.txt').read_text()!r}")
print("have the method:", has)
assert with_method.physical_to_logical_map.tolist() == [[3, 2, 1, 0]], "the behaviour has changed"
assert without is None and pathlib.Path("log.txt").read_text() == "", "the behaviour has changed"
assert [name for name in NAMES if has[name]] == ["deepseek_v2", "qwen3_moe"], "the behaviour has changed"
PYTHON
env/bin/python finding.py
