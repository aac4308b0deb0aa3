#!/usr/bin/env bash
# In vLLM, the row of a token in its batch decides which replica it uses, for all its experts at once.
#
# Surprising:  No draw, no turn-taking and no nearest rank: the kernel hashes the row number. All experts of a token use
#              the replica of the same number (modulo their counts), and row 0 always uses the first one. With one
#              token per rank and step (decode of a single request), redundant experts receive nothing at all.
# Versions:    vllm==0.33.0, triton==3.7.1 (its interpreter, on the CPU), torch==2.13.0 (any build), numpy==2.4.6
# Why:         Equal shares of replicas hold for large batches only. Redundant experts do nothing for small ones, and
#              which replica comes first in the map matters, though placements are scored as if it did not. Replicas
#              of experts that are used together are also used together: the ranks of a token are not independent.
# Seen:        2026-11-29
#
# vLLM's kernel and its caller run as they are in the wheel; only the modules that they import are stand-ins.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --no-compile numpy==2.4.6 torch==2.13.0 triton==3.7.1
env/bin/pip download -q --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux_2_28_x86_64 \
    vllm==0.33.0
unzip -q vllm-*.whl vllm/model_executor/layers/fused_moe/router/base_router.py
cat > finding.py <<'PYTHON'
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
import triton
import triton.language as tl

EXPERTS, TOP_K, REPLICAS = 64, 4, 4


def stand_in(name, **members):
    module = sys.modules[name] = ModuleType(name)
    vars(module).update(members)


cuda = SimpleNamespace(is_cuda_alike=lambda: True, is_xpu=lambda: False)
stand_in("vllm.platforms", current_platform=cuda)
stand_in("vllm.triton_utils", tl=tl, triton=triton)
stand_in("vllm.v1.worker.ubatching", dbo_current_ubatch_id=lambda: 0)
stand_in("vllm.distributed.eplb.eplb_state", EplbLayerState=object)
stand_in("vllm.model_executor.layers.fused_moe.router.fused_moe_router", FusedMoERouter=object)

from vllm.model_executor.layers.fused_moe.router.base_router import eplb_map_to_physical_and_record

# Every expert has four replicas; replica r of expert e is physical expert r * EXPERTS + e.
physical = torch.arange(REPLICAS * EXPERTS).reshape(REPLICAS, EXPERTS).T.contiguous()
counts = torch.full((EXPERTS,), REPLICAS)
rng = np.random.default_rng(0)


def batch(tokens):
    """Return the replica numbers (tokens, k) and the load of every physical expert that vLLM records."""
    experts = torch.tensor(rng.random((tokens, EXPERTS)).argsort(1)[:, :TOP_K])
    load = torch.zeros(REPLICAS * EXPERTS, dtype=torch.int32)
    on, unpadded = torch.ones((), dtype=torch.bool), torch.tensor(tokens, dtype=torch.int32)
    chosen = eplb_map_to_physical_and_record(experts, load, physical, counts, on, unpadded)
    assert torch.equal(chosen % EXPERTS, experts) and load.sum() == tokens * TOP_K
    return (chosen // EXPERTS).numpy(), load.numpy()


rows, _ = batch(4096)
together = np.mean(rows.max(1) == rows.min(1))
shares = np.bincount(rows[:, 0], minlength=REPLICAS) / len(rows)
first = np.mean([(batch(1)[0] == 0).all() for _ in range(100)])
again = (batch(4096)[0] == rows).all()
print(f"4096 tokens: replicas' shares {shares.round(2).tolist()}, all {TOP_K} experts of a token on the same number: "
      f"{together:.0%} (independent choice: {REPLICAS ** (1 - TOP_K):.1%})")
print(f"another 4096 tokens with other experts: the same number in every row: {again}")
print(f"batches of one token that use only first replicas: {first:.0%}")
assert together == 1 and again and first == 1 and np.allclose(shares, 1 / REPLICAS, atol=0.02), "behaviour has changed"
PYTHON
TRITON_INTERPRET=1 env/bin/python finding.py
