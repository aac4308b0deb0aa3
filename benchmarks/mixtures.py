"""Plans for several domains at once, on held-out tokens, beside plans for one of them and for all tokens together.

Run: ``python benchmarks/mixtures.py [TRACE] [--label NAME] [--topology T] [--redundant-experts R] [--splits 100 116]``.
TRACE is an ``.npz`` with ``topk_ids``, ``seq_id`` and an array of labels per token (``--label``, ``task_id`` by
default). Without one, three synthetic domains. Half of each domain's sequences fit the plans, half judge them: which
ones is drawn by the number of the split.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt
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


def domains(path: str | None, label: str, split: int) -> dict[str, traces.Trace]:
    """Return the traces of the domains by name, their sequences numbered at random: even ones fit, odd ones judge."""
    if path is None:
        return {name: renumbered(generate(parameters), split) for name, parameters in MADE.items()}
    with np.load(path) as arrays:
        ids, sequences, labels = arrays["topk_ids"], arrays["seq_id"].astype(np.int64), arrays[label]
        names = arrays["task_names"].tolist() if "task_names" in arrays else {}
    experts = int(ids.max()) + 1
    sequences = drawn(int(sequences.max()) + 1, split)[sequences]
    found = {}
    for number in np.unique(labels).tolist():
        own = labels == number
        name = str(names[number]) if len(names) > number else f"{label} {number}"
        found[name] = traces.Trace.of(ids[own], num_experts=experts, seq_id=sequences[own])
    return found


def drawn(count: int, split: int) -> npt.NDArray[np.int64]:
    """Return new numbers of sequences."""
    return np.random.default_rng(split).permutation(count) + 1000 * split


def renumbered(trace: traces.Trace, split: int) -> traces.Trace:
    """Return a trace whose sequences have new numbers."""
    batches = list(trace.batches())
    sequences = np.concatenate([np.asarray(batch.seq_id) for batch in batches]).astype(np.int64)
    _, number = np.unique(sequences, return_inverse=True)
    ids = np.concatenate([batch.topk_ids for batch in batches])
    return traces.Trace.of(ids, num_experts=trace.num_experts, seq_id=drawn(int(number.max()) + 1, split)[number])


def main() -> None:
    """Print the held-out matrix of each split, and how far the mixture is from the others in its worst domain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?")
    parser.add_argument("--label", default="task_id")
    parser.add_argument("--topology", default="1x4")
    parser.add_argument("--redundant-experts", type=int, default=8)
    parser.add_argument("--work", type=int, default=2_000_000, help="Of each search.")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--splits", type=int, nargs=2, default=(100, 101), help="First, and one beyond the last.")
    parser.add_argument("--machine", help="With --model, for milliseconds: h200:1x4.")
    parser.add_argument("--model")
    parser.add_argument("--phase", choices=("prefill", "decode"))
    options = parser.parse_args()
    print(conditions(options.trace or "three synthetic domains, 8 x 64, top-6", 0, "all"))
    neighbours = Neighbours()
    less: dict[str, list[tuple[float, float]]] = {}
    for split in range(*options.splits):
        sources = domains(options.trace, options.label, split)
        found = solvers.mixture(
            sources,
            options.topology,
            engine="sglang",
            redundant_experts=options.redundant_experts,
            solver="annealing",
            limits=solvers.Limits(work=options.work),
            rounds=options.rounds,
            phase=options.phase,
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
        print(f"\nsplit {split}")
        print(
            table(
                ["plan", *found.domains, "worst", "95 %", "above the mixture's, 95 %", "worst, fitted", "worst, ms"],
                rows,
            )
        )
        ours, rest = found.rows[0], found.rows[1:]
        for row in rest:
            step = 0.0 if row.step_ms is None or ours.step_ms is None else ours.step_ms - row.step_ms
            less.setdefault(row.name, []).append((ours.target - row.target, step))
    print("\nThe mixture's less that of another plan, worst domain, held out: mean over splits, its standard error")
    for name, differences in less.items():
        values = np.array(differences)
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.zeros(2)
        won = int((values[:, 0] < 0).sum())
        print(
            f"{name}: cost {values[:, 0].mean():+.4f} +- {error[0]:.4f} (below in {won} of {len(values)}), "
            f"step {values[:, 1].mean():+.4f} +- {error[1]:.4f} ms"
        )
    print(neighbours)


if __name__ == "__main__":
    main()
