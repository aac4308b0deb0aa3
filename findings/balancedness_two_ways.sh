#!/usr/bin/env bash
# vLLM's and SGLang's "balancedness" of the same counts differ, rank two plans in opposite order, and dense layers help.
#
# Surprising:  vLLM logs sum of means over sum of maxima, SGLang the mean over layers of mean over maximum. SGLang has a
#              row for every layer of the model and adds 1e-5 to both sides: a dense layer, or a pass without tokens,
#              counts as perfectly balanced. Rows that are all zero leave vLLM's figure alone.
# Versions:    vllm==0.33.0, sglang==0.5.23, torch==2.13.0 (any build), numpy==2.4.6, einops==0.8.1
# Why:         A balancedness can't be compared between engines, nor taken for the balance of the MoE layers. Few very
#              bad layers cost as much time as many slightly bad ones; SGLang's figure (also the threshold of its
#              rebalancing) sees the latter as much worse.
# Seen:        2026-11-29
#
# The functions run as they are in the wheels; the modules that SGLang's imports are stand-ins.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --no-compile numpy==2.4.6 torch==2.13.0 einops==0.8.1
env/bin/pip download -q --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux_2_28_x86_64 \
    --platform manylinux_2_34_x86_64 vllm==0.33.0 sglang==0.5.23
unzip -q vllm-*.whl vllm/distributed/eplb/eplb_state.py
unzip -q sglang-*.whl sglang/srt/eplb/expert_distribution.py
cat > finding.py <<'PYTHON'
import ast
import sys
from pathlib import Path
from unittest.mock import MagicMock

import torch

for name in ("environ", "model_executor.forward_batch_info", "observability.metrics_collector", "runtime_context"):
    sys.modules[f"sglang.srt.{name}"] = MagicMock()
sys.modules["sglang.srt.utils"] = MagicMock()

from sglang.srt.eplb.expert_distribution import compute_gpu_physical_count, compute_utilization_rate

# vLLM's file imports its whole engine: the function is taken out of it, unchanged.
tree = ast.parse(Path("vllm/distributed/eplb/eplb_state.py").read_text())
found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "_compute_eplb_load_stats"]
exec(compile(ast.Module(body=found, type_ignores=[]), "eplb_state.py", "exec"))

RANKS, SLOTS, DENSE, MOE, TOKENS = 8, 4, 3, 58, 32_000


def counts(peaks):
    """Return physical counts (MOE, RANKS * SLOTS); rank 0 of layer l has peaks[l] times the mean."""
    rows = []
    for peak in peaks:
        hot = round(TOKENS / RANKS * peak / SLOTS)
        rest = (TOKENS - SLOTS * hot) / (RANKS - 1) / SLOTS
        rows.append([hot] * SLOTS + [rest] * (RANKS - 1) * SLOTS)
    return torch.tensor(rows)


def vllm(physical):
    mean, largest = _compute_eplb_load_stats(physical.reshape(len(physical), RANKS, SLOTS).sum(-1).float())
    return float(mean / largest)


def sglang(physical):
    return float(compute_utilization_rate(compute_gpu_physical_count(physical, RANKS)).mean())


plans = {"few layers very bad": counts([4.0] * 15 + [1.0] * 43), "all layers slightly bad": counts([1.6] * MOE)}
seen = {}
for name, physical in plans.items():
    whole = torch.cat([torch.zeros(DENSE, RANKS * SLOTS), physical])
    seen[name] = vllm(physical), sglang(physical), vllm(whole), sglang(whole)
    print("{}: vLLM {:.3f}, SGLang {:.3f}; with {} dense layers {:.3f}, {:.3f}".format(
        name, *seen[name][:2], DENSE, *seen[name][2:]))
idle = sglang(torch.zeros(DENSE + MOE, RANKS * SLOTS))
print(f"a pass without tokens: SGLang {idle:.3f}")

few, all_ = seen.values()
changed = "the behaviour has changed"
assert few[0] < all_[0] and few[1] > all_[1] + 0.1, changed
assert all(abs(row[2] - row[0]) < 1e-6 and row[3] > row[1] + 0.005 for row in seen.values()) and idle == 1, changed
PYTHON
env/bin/python finding.py
