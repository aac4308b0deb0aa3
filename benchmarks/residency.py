"""Hit rates of every residency policy with a quarter, a half and three quarters of the experts resident.

    python benchmarks/residency.py --data FOLDER

Recorded traces are those in the folder (or in MOE_PLACEMENT_DATA); without, a synthetic one. Policies are fitted on the
even sequences and run on the odd ones; see docs/residency.md. With ``--speed``, how many accesses a second each
policy takes, on one core, in CPU time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from placement.residency import POLICIES, Accesses, Fitted, Slots, read_tokens, simulate
from solvers import Residency, simulate_residency
from traces import Trace, load
from traces.synthetic import Synthetic, generate

SHARES = (0.25, 0.5, 0.75)
BATCHES = (1, 16)
MACHINE = "h200:1x1"
SYNTHETIC = Synthetic(num_layers=16, num_experts=64, top_k=8, num_tokens=16_384, skew=0.6, affinity=0.8)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A trace in the folder of data."""

    file: str
    model: str
    experts: int
    what: str


RECORDED = (
    Recorded(file="deepseek_v2_lite.npz", model="deepseek-v2-lite", experts=64, what="prompts of three tasks"),
    Recorded(file="gpt_oss_20b.npz", model="gpt-oss-20b", experts=32, what="answers"),
)


def inputs(data: str | None) -> Iterator[tuple[str, str, Trace]]:
    """Yield title, model and trace."""
    found = [(each, Path(data) / each.file) for each in RECORDED] if data else []
    for each, path in found:
        if path.exists():
            yield f"{each.model}, {each.what}", each.model, load(path, num_experts=each.experts)
    if not any(path.exists() for _, path in found):
        yield "synthetic, 16 x 64, top-8, seed 0", "olmoe", generate(SYNTHETIC)


def rows(found: list[Residency]) -> Iterator[str]:
    """Yield a line per policy: hits and time for each share, the best practical one in bold."""
    for name in POLICIES:
        cells = []
        for each in found:
            figures = each[name]
            text = f"{figures.hit_rate:.1%}"
            step = f"{figures.step:.3g}"
            cells += [f"**{text}**", f"**{step}**"] if name == best_by_hits(each) else [text, step]
        yield f"| `{name}` | {' | '.join(cells)} |"


def best_by_hits(found: Residency) -> str:
    """Return the practical policy with the most hits."""
    return max((each for each in found.policies if each.practical), key=lambda each: each.hit_rate).name


def hit_rates(data: str | None) -> None:
    """Print a table for each trace and number of tokens per step."""
    for title, model, trace in inputs(data):
        for batch in BATCHES:
            found = [
                simulate_residency(trace, resident=share, machine=MACHINE, model=model, batch_tokens=batch)
                for share in SHARES
            ]
            shares = " | ".join(f"{share:.0%} hits | ms" for share in SHARES)
            print(f"\n{title}, steps of {batch} ({found[0].accesses:,} accesses)\n\n| policy | {shares} |")
            print("|---|" + "---:|" * (2 * len(SHARES)))
            print("\n".join(rows(found)))
            print(
                "fastest: " + ", ".join(f"{share:.0%} {each.best}" for share, each in zip(SHARES, found, strict=True))
            )


def speed(data: str | None) -> None:
    """Print millions of accesses per second of CPU time, of each policy."""
    for title, _, trace in inputs(data):
        tokens = read_tokens(trace)
        for batch in BATCHES:
            accesses = Accesses.of(tokens, batch_tokens=batch)
            fitted = Fitted.of(tokens, accesses)
            slots = Slots.shared(accesses.num_layers * accesses.num_experts // 2, accesses.num_layers)
            taken = []
            for name in POLICIES:
                simulate(accesses.spread(1000), name, slots, fitted)  # compiled
                begin = time.process_time()
                simulate(accesses, name, slots, fitted)
                taken.append(f"{name} {len(accesses) / (time.process_time() - begin) / 1e6:.1f}")
            print(f"{title}, steps of {batch}, {len(accesses):,} accesses, M/s: {', '.join(taken)}")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("MOE_PLACEMENT_DATA"), help="folder of recorded traces")
    parser.add_argument("--speed", action="store_true", help="how fast the loops are")
    arguments = parser.parse_args()
    speed(arguments.data) if arguments.speed else hit_rates(arguments.data)


if __name__ == "__main__":
    main()
