"""What re-plans move, and how often they are proposed where nothing has changed.

python benchmarks/moves.py drift [--windows 3] [--solver load_balance]
    A synthetic model of 58 layers with 256 experts, top-8, drift .6, on 4x8 with 288 slots (SGLang). In every window of
    2,048 tokens a plan is found for its counts: experts that move from the plan before under the names of the search,
    under the names that move least, and the fewest that reach the same score (`solvers.fronts.few`).
python benchmarks/moves.py still [--seeds 20]
    A plan for 8,192 tokens, and a re-plan on 8,192 others of the same traffic: verdicts, and what changes would have
    gained on 16,384 further tokens (Qwen3-30B-A3B on h200:2x4, 4 layers, prefill of 256 tokens per GPU, an hour).
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np

import solvers
from placement import Plan, Problem, Topology, relabel, score
from placement.moves.relabel import moved_experts
from placement.time import TimeModel, step_time
from solvers.fronts.few import few_moves
from solvers.searching.limits import Limits
from traces import LoadCounts, Profile, Trace
from traces.synthetic import Synthetic, generate

WINDOW = 2048


def drift(windows: int, method: str) -> None:
    """Print moves from window to window."""
    shape = Synthetic(num_layers=58, num_experts=256, top_k=8, num_tokens=windows * WINDOW, drift=0.6)
    ids = np.concatenate([batch.topk_ids for batch in generate(shape).batches()])
    running: Plan | None = None
    sums = np.zeros(3)
    for window in range(windows):
        part = Trace.of(ids[window * WINDOW : (window + 1) * WINDOW], num_experts=256)
        counts = Profile.of(LoadCounts.of(np.asarray(Profile.of(part).load)))
        problem = Problem(counts, Topology.parse("4x8"), 9, engine="sglang")
        found = solvers.solve(problem, method, limits=Limits(work=2_000_000)).plan
        if running is None:
            running = found
            continue
        begin = time.process_time()
        named = relabel(problem, running, found)
        held = running.physical_to_logical_map
        wanted = score(problem, named.plan).total
        way = few_moves(problem, held, [named.plan.physical_to_logical_map], 12)
        reached = [table for table in way if score(problem, table).total <= wanted * (1 + 1e-9)]
        fewest = min(moved_experts(held, table, 256, 32) for table in reached)
        print(
            f"window {window}: {named.moved_before:,} experts, {named.moved_after:,} under the best names, {fewest:,} "
            f"at the score {wanted:.4f} (re-solved {score(problem, found).total:.4f}, running "
            f"{score(problem, running).total:.4f}); {time.process_time() - begin:.0f} s of one core"
        )
        sums += [named.moved_before, named.moved_after, fewest]
        running = named.plan
    print(f"in all: {1 - sums[1] / sums[0]:.0%} less under the best names, {1 - sums[2] / sums[0]:.0%} less in all")


def still(seeds: int) -> None:
    """Print verdicts on traffic that does not change."""
    asked = {"machine": "h200:2x4", "model": "qwen3-30b-a3b", "engine": "sglang", "tokens_per_gpu": 256}
    time_model = TimeModel.of("h200:2x4", "qwen3-30b-a3b", phase="prefill", tokens_per_gpu=256)
    verdicts: Counter[str] = Counter()
    wrong = 0
    for seed in range(seeds):
        shape = Synthetic(
            num_layers=4, num_experts=128, top_k=8, num_tokens=32768, skew=0.8, affinity=0, tokens_per_sequence=64
        )
        trace = generate(shape if seed == 0 else Synthetic(**(vars(shape) | {"seed": seed})))
        ids = np.concatenate([batch.topk_ids for batch in trace.batches()])
        sequence = np.arange(len(ids)) // 64
        parts = [
            Trace.of(ids[rows], num_experts=128, seq_id=sequence[rows])
            for rows in (slice(8192), slice(8192, 16384), slice(16384, None))
        ]
        study = solvers.Study.of(parts[0], "2x4", engine="sglang", redundant_experts=16, hold_out=0)
        running = study.solve("load_balance", limits=Limits(work=200_000)).plan
        found = solvers.replan(running, parts[1], solver="load_balance", limits=Limits(work=200_000), **asked)
        verdicts[found.verdict] += 1
        if found.verdict == "replan":
            before, after = (
                step_time(plan, parts[2], time_model, engine="sglang").step_ms for plan in (running, found.plan)
            )
            saved = (1 - after / before) * found.horizon_s
            wrong += saved < found.cost_s
            print(f"seed {seed}: {found.moves.experts} moves, saves {saved:.1f} s, costs {found.cost_s:.1f} s")
    print(dict(verdicts), f"re-plans that do not pay: {wrong}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["drift", "still"], metavar="drift|still")
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--solver", default="load_balance")
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    if "drift" in given.what:
        drift(given.windows, given.solver)
    if "still" in given.what:
        still(given.seeds)
