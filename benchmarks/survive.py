"""What it costs to survive failures: 58 x 256 experts on 8x8, with a proof, and beside EPLB and Lazarus's placement.

Run: ``python benchmarks/survive.py [--time-limit S] [--seeds N]``.
Synthetic trace (58 layers of 256 experts, top-8, 20,000 tokens, seed 0), SGLang's objective. With 8 slots per GPU (512
a layer) every expert can be on two nodes; with 5 (320) it can't, and the least loss to a failing node is asked for.
Then 100 days of failures: each node fails with the same chance a day and is back after two, the same for all plans.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from _harness import Neighbours, conditions, table

import placement
import solvers
import traces
from traces.synthetic import Synthetic, generate

SEED = 0
DAYS, CHANCE, BACK = 100, 0.02, 2
TRACE = Synthetic(num_layers=58, num_experts=256, top_k=8, num_tokens=20_000, seed=SEED)


def events(nodes: int, seed: int) -> list[solvers.FailureEvent]:
    """Return a schedule of failures and joins; no more than two nodes are away at once."""
    rng = np.random.default_rng(seed)
    away: dict[int, int] = {}
    found = []
    for day in range(DAYS):
        for node in [node for node, back in away.items() if back == day]:
            del away[node]
            found.append(solvers.FailureEvent(at=day, what="join", number=node))
        for node in np.flatnonzero(rng.random(nodes) < CHANCE).tolist():
            if node not in away and len(away) < 2:
                away[node] = day + BACK
                found.append(solvers.FailureEvent(at=day + 0.5, what="fail", number=node))
    return found


def main() -> None:
    """Print a row per number of slots and way to plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, default=5, help="Schedules.")
    options = parser.parse_args()
    print(conditions("synthetic 58 x 256, top-8, 20,000 tokens", SEED, "all"))
    neighbours = Neighbours()
    profile = traces.Profile.of(generate(TRACE))
    topology = placement.Topology.parse("8x8")
    rows = []
    for slots, asked in ((8, "nodes=1"), (5, "nodes=1,lost=least")):
        ways = (("auto", None), ("auto", asked), ("eplb", None), ("lazarus", None))
        for name, survive in ways:
            rule = None if survive is None else placement.Survive.parse(survive)
            constraints = placement.Constraints(survive=rule)
            problem = placement.Problem(profile, topology, slots, constraints=constraints, engine="sglang")
            limits = solvers.Limits(time_s=options.time_limit)
            wall, cpu = time.monotonic(), time.process_time()
            found = solvers.solve(problem, name, limits=limits, seed=SEED)
            wall, cpu = time.monotonic() - wall, time.process_time() - cpu
            proof = placement.prove_survival(found.plan, topology, asked, load=profile.load)
            states = [
                state
                for seed in range(options.seeds)
                for state in solvers.simulate_failures(found.plan, topology, "nodes", events(8, seed), profile.load)
            ]
            fails = [state for state in states if state.event.what == "fail"]
            after = [state.largest_load for state in fails if state.largest_load is not None]
            rows.append(
                [
                    str(slots),
                    name + ("" if survive is None else f" --survive {survive}"),
                    f"{wall:.1f}",
                    f"{cpu:.1f}",
                    f"{found.score.total:.3f}",
                    f"{found.score['traffic'].value:.3f}",
                    f"{1 + found.score['imbalance'].value:.3f}",
                    "yes" if proof.survives else "no",
                    f"{proof.lost_in_layer} (least {proof.least_lost})",
                    f"{proof.lost_load or 0:.1%}",
                    f"{np.mean([state.lost for state in fails]):.0f}",
                    f"{np.mean(after):.3f}" if after else "-",
                    f"{len(fails) - len(after)} of {len(fails)}",
                ]
            )
    header = ["slots", "plan", "wall s", "CPU s", "score", "traffic", "max/mean", "survives", "lost in a layer"]
    header += ["load lost", "lost per failure", "max/mean after", "too few slots"]
    print(table(header, rows))
    print(neighbours)


if __name__ == "__main__":
    main()
