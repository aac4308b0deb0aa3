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
from itertools import pairwise
from pathlib import Path

import numpy as np
from _harness import Neighbours, conditions, table

from solvers import PolicyRequest
from solvers.policies.gate import Gate
from solvers.policies.oracle import best_sequence
from solvers.policies.results import PolicyRun
from solvers.policies.running import policies_of, run_policy, simulated
from solvers.policies.setting import Setting
from traces import Series, Trace
from traces.support.words import Phase
from traces.synthetic import Synthetic, generate

WINDOWS = 10
POLICIES = ("never", "every_window", "eplb_every_window", "on_drift", "on_gain", "oracle")
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


def counted(series: Series) -> Series:
    """Return the same series without its tokens."""
    return replace(series, windows=tuple(replace(window, tokens=None) for window in series.windows))


def row(name: str, series: Series, phase: Phase) -> list[str]:
    """Return the totals of one series in seconds, re-plans in brackets, and what is moved.

    What `simulate` does, without the engines' own settings. Plans for each window under the names of the search are the
    same plans as those of ``every_window``, so that they score the same.
    """
    start = time.process_time()
    setting = Setting.of(series, PolicyRequest(topology="4x8", redundant_experts=32, phase=phase))
    policies = policies_of(setting, Gate(setting=setting))
    runs, paths = zip(*(run_policy(setting, each, decide) for each, decide in policies.items()), strict=True)
    best = best_sequence(setting, paths)
    runs = (*runs, PolicyRun.of("oracle", simulated(setting, best, [""] * len(best))))
    totals = {run.name: run for run in runs}
    plans = [setting.start, *(setting.plan(shares) for shares in series.shares[:-1])]
    unnamed = sum(setting.move(old, new).bytes for old, new in pairwise(plans))
    moved = [unnamed, totals["every_window"].moved_bytes, totals["on_gain"].moved_bytes]
    cells = [f"{run.total_ms / 1e3:.4g} ({run.replans})" for run in runs]
    return [name, *cells, *(f"{each / 1e9:.0f}" for each in moved), f"{time.process_time() - start:.0f}"]


HEADS = ["series", *(name.replace("_", "\n") for name in POLICIES), "GB unnamed", "GB every", "GB on_gain", "cpu s"]


def drifting() -> None:
    """Print the totals of all policies, row by row as they are there."""
    made = {
        "DeepSeek-V2-Lite, 3 tasks": lambda: recorded("deepseek_v2_lite", "task_id", 64),
        "gpt-oss-20b, 5 data sets": lambda: recorded("gpt_oss_20b", "dataset", 32),
        "58 x 256, drift .6": lambda: Series.of(generate(DRIFTING), windows=WINDOWS),
    }
    rows = []
    for name, make in made.items():
        series = make()
        if series is None:
            print(f"{name}: left out, MOE_PLACEMENT_DATA names no folder that has it")
            continue
        for kind, each in (("", series), (", counts", counted(series))):
            for phase in PHASES:
                rows.append(row(f"{name}{kind}, {phase}", each, phase))
                print(*rows[-1], sep=" | ", flush=True)
    print(table(HEADS, rows))


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
