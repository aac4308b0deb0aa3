"""Proven optima of a small model: dynamic programming over the chain beside ExFlow's integer programme.

Run: ``python benchmarks/small_proofs.py [--rounds N] [--time-limit S]``. Target: 32 layers of 8 experts proven within
1 s on 4 GPUs of a node, within 2 s on 2 nodes of 2 GPUs.
"""

from __future__ import annotations

import argparse
import statistics

from _harness import Neighbours, available_cores, conditions, table

import placement
import solvers
import traces
from traces.synthetic import Synthetic, generate

SEED = 0
TRACE = Synthetic(num_layers=32, num_experts=8, top_k=2, num_tokens=20_000, seed=SEED)
TARGET_S = {"1x4": 1.0, "2x2": 2.0}
METHODS = {"chain_dp": {}, "exflow (flat, CP-SAT)": {"backend": "cp_sat"}}
HEADER = ["", "score", "bound", "gap", "seconds", "plan", "target"]


def rows_of(profile: traces.Profile, topology: str, rounds: int, time_s: float) -> list[list[str]]:
    """Return one row per method; ExFlow, which ends with its limit, runs once."""
    problem = placement.Problem(profile, placement.Topology.parse(topology))
    limits = solvers.Limits(time_s=time_s)
    rows = []
    for name, options in METHODS.items():
        solver = name.split(" ")[0]
        exact = solver == "chain_dp"
        if exact:
            solvers.solve(problem, solver, limits=limits, seed=SEED)  # compiles its loops
        found = [
            solvers.solve(problem, solver, limits=limits, seed=SEED, options=dict(options))
            for _ in range(rounds if exact else 1)
        ]
        plan, took = found[0].plan, statistics.median(one.elapsed_s for one in found)
        verdict = ""
        if exact:
            met = found[0].termination.reason == "optimal" and took <= TARGET_S[topology]
            verdict = f"{TARGET_S[topology]:g} s: {'met' if met else 'MISSED'}"
        bound, gap = ("-", "-") if plan.bound is None else (f"{plan.bound:.5f}", f"{plan.gap:.1%}")
        reason = found[0].termination.reason
        rows.append([f"{topology}: {name}", f"{plan.score:.5f}", bound, gap, f"{took:.2f}", reason, verdict])
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of chain_dp (default: %(default)s)")
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds for ExFlow (default: %(default)s)")
    arguments = parser.parse_args()
    data = f"synthetic 32 x 8, top-2, {TRACE.num_tokens:,} tokens"
    print(conditions(data, SEED, f"{available_cores()} threads, median of {arguments.rounds} runs"), "\n")
    neighbours = Neighbours()
    profile = traces.Profile.of(generate(TRACE))
    rows = [row for name in TARGET_S for row in rows_of(profile, name, arguments.rounds, arguments.time_limit)]
    print(table(HEADER, rows))
    print(f"\n{neighbours}")


if __name__ == "__main__":
    main()
