#!/usr/bin/env bash
# Without a statistics file, LMDeploy's EPLB balances loads that it makes up: expert 0 the most, the last one nothing.
#
# Surprising:  `LMDEPLOY_EPLB_EXPERTS_STATISTIC_FILE` is optional. Without it, each layer is planned for loads of E - 1,
#              E - 2, ..., 0, so the redundant experts are replicas of the lowest numbers, whatever the model does.
# Versions:    lmdeploy==0.18.0, torch==2.13.0 (any build), numpy==2.4.6
# Why:         Redundant experts without recorded loads are memory spent on experts that nobody measured.
# Seen:        2026-11-30
#
# LMDeploy's module runs as it is in the wheel.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --no-compile numpy==2.4.6 torch==2.13.0
env/bin/pip download -q --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux_2_34_x86_64 \
    --platform manylinux_2_28_x86_64 lmdeploy==0.18.0
unzip -q lmdeploy-*.whl lmdeploy/pytorch/envs.py lmdeploy/pytorch/nn/eplb.py
mv lmdeploy/pytorch/nn/eplb.py . && touch lmdeploy/__init__.py lmdeploy/pytorch/__init__.py
cat > finding.py <<'PYTHON'
import json

import numpy as np

import eplb

LAYERS, EXPERTS, RANKS, REDUNDANT = 4, 64, 8, 16
eplb.eplb_num_redundant_experts, eplb.eplb_num_groups, eplb.eplb_ranks_per_node = REDUNDANT, 1, 8
assert eplb.eplb_experts_statistic_file is None
slots = eplb.EPLBMetadata.init(RANKS, EXPERTS, LAYERS).physical_to_logical_map.numpy()
replicas = np.array([np.bincount(row, minlength=EXPERTS) for row in slots])
twice = [np.flatnonzero(row > 1).tolist() for row in replicas]
print(f"experts with replicas, in every layer: {twice[0]}")

# A model whose busy experts are the last ones, and the same planner with that in a statistics file.
load = (np.arange(EXPERTS)[np.newaxis].repeat(LAYERS, 0) ** 2).astype(int)
with open("statistics.json", "w") as file:
    json.dump(load.tolist(), file)


def max_over_mean(slots):
    """Return what the busiest rank has over the mean, replicas sharing their expert's load."""
    shares = np.array([np.bincount(row, minlength=EXPERTS) for row in slots])
    ranks = np.take_along_axis(load / shares, slots, 1).reshape(LAYERS, RANKS, -1).sum(2)
    return (ranks.max(1) / ranks.mean(1)).mean()


eplb.eplb_experts_statistic_file = "statistics.json"
told = eplb.EPLBMetadata.init(RANKS, EXPERTS, LAYERS).physical_to_logical_map.numpy()
made_up, measured = max_over_mean(slots), max_over_mean(told)
print(f"max/mean of ranks, last experts busiest: {made_up:.3f} without the file, {measured:.3f} with it")
assert all(row == list(range(REDUNDANT)) for row in twice), "the behaviour has changed"
assert made_up > 1.05 > measured, "the behaviour has changed"
PYTHON
env/bin/python finding.py
