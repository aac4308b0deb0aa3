"""When to re-plan: policies over series that drift, that take turns between domains, and that stay as they are.

    python benchmarks/policies.py
    python benchmarks/policies.py --stationary 100

Totals are seconds of 1,000 forward passes per window, with moves and stalls. Made traces are of this project's own
generator; the recorded ones are read from the folder in ``MOE_PLACEMENT_DATA``, and left out without it. Nothing is
tuned to them. In stationary series, the re-plans of the gate whose gain over the windows that followed was below their
cost are counted.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from _harness import Neighbours, conditions, table

from solvers import PolicyRequest, Simulation, simulate
from solvers.policies.gate import Gate
from solvers.policies.running import policies_of, run_policy
from solvers.policies.setting import Setting
from traces import Series, Trace
from traces.support.words import Phase
from traces.synthetic import Synthetic, generate

WINDOWS = 10
PHASES: tuple[Phase, ...] = ("decode", "prefill")
DRIFTING = Synthetic(num_layers=58, num_experts=256, top_k=8, num_tokens=100_000, drift=0.6)
STILL = Synthetic(num_layers=12, num_experts=64, top_k=4, num_tokens=40_000, tokens_per_sequence=128)


def recorded(name: str, domains: str, experts: int) -> Series | None:
    """Return a recorded trace whose domains take turns in ten windows."""
    folder = os.environ.get("MOE_PLACEMENT_DATA")
    path = None if folder is None else Path(folder) / f"{name}.npz"
    if path is None or not path.exists():
        return None
    arrays = np.load(path)
    sequence, domain = arrays["seq_id"], np.unique(arrays[domains], return_inverse=True)[1]
    if len(domain) != len(sequence):  # said per sequence
        domain = domain[np.unique(sequence, return_inverse=True)[1]]
    trace = Trace.of(arrays["topk_ids"], num_experts=experts, seq_id=sequence, data_source=domain.astype(np.int32))
    return Series.of(trace, windows=WINDOWS, by="source")


def row(name: str, found: Simulation, cpu_s: float) -> list[str]:
    """Return the totals of one series in seconds, re-plans in brackets."""
    cells = [f"{run.total_ms / 1e3:.4g} ({run.replans})" for run in found.policies]
    return [name, *cells, f"{found['on_gain'].moved_bytes / 1e9:.0f}", f"{cpu_s:.0f}"]


def drifting() -> None:
    """Print the totals of all policies."""
    made = {
        "DeepSeek-V2-Lite, 3 tasks": lambda: recorded("deepseek_v2_lite", "task_id", 64),
        "gpt-oss-20b, 5 data sets": lambda: recorded("gpt_oss_20b", "dataset", 32),
        "58 x 256, drift .6": lambda: Series.of(generate(DRIFTING), windows=WINDOWS),
    }
    rows, names = [], [""]
    for name, make in made.items():
        series = make()
        if series is None:
            print(f"{name}: left out, MOE_PLACEMENT_DATA names no folder that has it")
            continue
        for phase in PHASES:
            start = time.process_time()
            found = simulate(series, topology="4x8", redundant_experts=32, phase=phase)
            rows.append(row(f"{name}, {phase}", found, time.process_time() - start))
            names = [run.name.replace("_", "\n") for run in found.policies]
    print(table(["series", *names, "GB moved\non_gain", "cpu\ns"], rows))


def stationary(seeds: int) -> None:
    """Print how many re-plans of the gate did not pay, over so many series that stay as they are."""
    for phase in PHASES:
        unpaid, replans, totals = 0, Counter[int](), dict.fromkeys(("never", "every_window", "on_gain"), 0.0)
        for seed in range(seeds):
            series = Series.of(generate(replace(STILL, seed=seed)), windows=WINDOWS)
            request = PolicyRequest(topology="2x4", redundant_experts=16, phase=phase, seed=seed)
            setting = Setting.of(series, request)
            policies = policies_of(setting, Gate(setting=setting))
            runs = {name: run_policy(setting, name, policies[name])[0] for name in totals}
            unpaid += runs["on_gain"].unpaid
            replans[runs["on_gain"].replans] += 1
            for name, run in runs.items():
                totals[name] += run.total_ms / 1e3 / seeds
        means = ", ".join(f"{name} {total:.4g} s" for name, total in totals.items())
        counted = ", ".join(f"{count} of {number}" for number, count in sorted(replans.items()))
        print(
            f"stationary, {phase}, {seeds} seeds: {unpaid} re-plans did not pay; re-plans: {counted}; means: {means}",
            flush=True,
        )


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stationary", type=int, metavar="SEEDS", help="count re-plans that don't pay, and no more")
    asked = parser.parse_args()
    neighbours = Neighbours()
    print(conditions("synthetic, and recorded where there is any", 0, "one thread"))
    if asked.stationary is None:
        drifting()
    else:
        stationary(asked.stationary)
    print(neighbours)


if __name__ == "__main__":
    main()
