"""Plans for several domains at once, on held-out tokens, beside plans for one of them and for all tokens together.

Run: ``python benchmarks/mixtures.py [TRACE] [--label NAME] [--topology T] [--redundant-experts R] [--seeds N]``.
TRACE is an ``.npz`` with ``topk_ids``, ``seq_id`` and an array of labels per token (``--label``, ``task_id`` by
default). Without one, three synthetic domains. Half of each domain's sequences fit the plans, half judge them.
"""

from __future__ import annotations

import argparse

import numpy as np
from _harness import Neighbours, conditions, table

import solvers
import traces
from traces.synthetic import Synthetic, generate

SIZES = {"num_layers": 8, "num_experts": 64, "top_k": 6}
# The first has most of the tokens: a plan for all of them together is a plan for it.
MADE = {
    f"seed {seed}": Synthetic(seed=seed, num_tokens=tokens, **SIZES)
    for seed, tokens in ((1, 80_000), (2, 20_000), (3, 20_000))
}


def domains(path: str | None, label: str) -> dict[str, traces.Trace]:
    """Return the traces of the domains by name."""
    if path is None:
        return {name: generate(parameters) for name, parameters in MADE.items()}
    with np.load(path) as arrays:
        ids, sequences, labels = arrays["topk_ids"], arrays["seq_id"].astype(np.int64), arrays[label]
        names = arrays["task_names"].tolist() if "task_names" in arrays else {}
    experts = int(ids.max()) + 1
    found = {}
    for number in np.unique(labels).tolist():
        own = labels == number
        name = str(names[number]) if len(names) > number else f"{label} {number}"
        found[name] = traces.Trace.of(ids[own], num_experts=experts, seq_id=sequences[own])
    return found


def main() -> None:
    """Print the held-out matrix of each seed, and how often the mixture's plan is best by its worst domain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?")
    parser.add_argument("--label", default="task_id")
    parser.add_argument("--topology", default="1x4")
    parser.add_argument("--redundant-experts", type=int, default=8)
    parser.add_argument("--work", type=int, default=2_000_000, help="Of each search.")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--machine", help="With --model, for milliseconds: h200:1x4.")
    parser.add_argument("--model")
    options = parser.parse_args()
    print(conditions(options.trace or "three synthetic domains, 8 x 64, top-6", 0, "all"))
    neighbours = Neighbours()
    sources = domains(options.trace, options.label)
    won = {"pooled": 0, "every plan for one domain": 0}
    for seed in range(options.seeds):
        found = solvers.mixture(
            sources,
            options.topology,
            engine="sglang",
            redundant_experts=options.redundant_experts,
            solver="annealing",
            limits=solvers.Limits(work=options.work),
            rounds=options.rounds,
            seed=seed,
            machine=options.machine,
            model=options.model,
        )
        rows = [
            [
                row.name,
                *(f"{cell.cost:.4f}" for cell in row.cells.values()),
                f"{row.target:.4f}",
                f"{row.low:.4f} to {row.high:.4f}",
                f"{row.above_low:+.4f} to {row.above_high:+.4f}",
                f"{max(cell.fit for cell in row.cells.values()):.4f}",
                "-" if row.step_ms is None else f"{row.step_ms:.2f}",
            ]
            for row in found.rows
        ]
        print(f"\nseed {seed}")
        print(
            table(
                ["plan", *found.domains, "worst", "95 %", "above the mixture's, 95 %", "worst, fitted", "worst, ms"],
                rows,
            )
        )
        ours, pooled, *single = (row.target for row in found.rows)
        won["pooled"] += ours < pooled
        won["every plan for one domain"] += ours < min(single)
    print()
    for name, count in won.items():
        print(f"The worst domain costs less than under {name}: {count} of {options.seeds} seeds")
    print(neighbours)


if __name__ == "__main__":
    main()
