#!/usr/bin/env bash
# SGLang's `stat` dump holds the last 1,000 passes only (by default), rotated, and the next one starts midway.
#
# Surprising:  `logical_count` looks like (passes in order, layers, experts). It is a ring: longer recordings lose their
#              first passes without a word, and the oldest row that is left stands in the middle. A dump clears the rows
#              but not the position: rows of the next recording start where the last one stopped, after zeros.
# Versions:    sglang==0.5.23, torch==2.13.0 (any build), numpy==2.4.6, einops==0.8.1
# Why:         Sums over rows are loads of the last passes, not of the recording; windows, hold-out by time and drift
#              need the rows in order, which the file can't tell. `--expert-distribution-recorder-buffer-size -1` keeps
#              all passes in order.
# Seen:        2026-11-29
#
# SGLang's accumulator runs as it is in the wheel, with a process group of one; its server context is a stand-in.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --no-compile numpy==2.4.6 torch==2.13.0 einops==0.8.1
env/bin/pip download -q --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux_2_34_x86_64 \
    sglang==0.5.23
unzip -q sglang-*.whl sglang/srt/eplb/expert_distribution.py
cat > finding.py <<'PYTHON'
import sys
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import torch

BUFFER, LAYERS, EXPERTS = 1000, 2, 4


def stand_in(name, **members):
    module = sys.modules[name] = ModuleType(name)
    vars(module).update(members)


moe = SimpleNamespace(expert_distribution_recorder_mode="stat", expert_distribution_recorder_buffer_size=BUFFER)
stand_in("sglang.srt.environ", envs=None)
stand_in("sglang.srt.model_executor.forward_batch_info", ForwardBatch=object, ForwardMode=object)
stand_in(
    "sglang.srt.observability.metrics_collector", STAT_LOGGER_ROLE_EXPERT_DISPATCH=None, ExpertDispatchCollector=None,
    resolve_collector_class=None,
)
stand_in(
    "sglang.srt.runtime_context", get_exec=lambda: SimpleNamespace(moe=moe), get_platform=None, get_schedule=None,
    get_device=lambda: SimpleNamespace(device="cpu"), logs_expert_balancedness_to_server_log=lambda: False,
    reports_expert_balancedness=lambda: False,
)
stand_in("sglang.srt.utils", Withable=None, get_device=lambda: "cpu", get_int_env_var=None)
torch.get_device_module = MagicMock()  # asked only to free device memory

from sglang.srt.eplb.expert_distribution import _Accumulator

torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
location = SimpleNamespace(
    num_layers=LAYERS, num_physical_experts=EXPERTS, num_logical_experts=EXPERTS,
    physical_to_logical_map=torch.arange(EXPERTS).repeat(LAYERS, 1),
)


def recorded(accumulator, passes):
    """Record passes whose counts are their numbers, and return those of the dump's rows; 0 is an unused row."""
    for number in passes:
        counts = torch.full((LAYERS, EXPERTS), number, dtype=torch.int32)
        accumulator.append(number, "primary", {"global_physical_count": counts}, {})
    rows = accumulator.dump(output_mode="object")["logical_count"][:, 0, 0].tolist()
    accumulator.reset()  # as the recorder does after each dump
    return rows


ring = _Accumulator.init_new(location, rank=0)
first, second = recorded(ring, range(1, 1301)), recorded(ring, range(5001, 5101))
moe.expert_distribution_recorder_buffer_size = -1
whole = recorded(_Accumulator.init_new(location, rank=0), range(1, 1301))
start = second.index(5001)
print(f"1300 passes: {len(first)} rows; row 0 is pass {first[0]}, row 299 pass {first[299]}, row 300 pass {first[300]}")
print(f"next recording, 100 passes: rows {start} to {start + 99} of {len(second)}, the others zero")
print(f"unlimited buffer: {len(whole)} rows, in order: {whole == list(range(1, 1301))}")
assert first == [*range(1001, 1301), *range(301, 1001)], "the behaviour has changed"
assert second == [0] * 300 + [*range(5001, 5101)] + [0] * 600, "the behaviour has changed"
assert whole == list(range(1, 1301)), "the behaviour has changed"
PYTHON
env/bin/python finding.py
