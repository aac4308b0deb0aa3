"""What each doubling costs: of layers, experts, GPUs and tokens, step by step of a search.

Run: ``python benchmarks/scaling.py [--rounds N] [--doublings N] [--svg FILE]``. Steps: profile the trace, build the
search's tables, score a plan, a fixed number of swap trials, and a step of the bound of one pair of layers.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _harness import Neighbours, available_cores, conditions, interleaved, seconds, table

import placement
import traces
from solvers.bounds.layer_windows import ChainBound
from solvers.methods.annealing.tables.model import ItemModel
from solvers.methods.annealing.tables.run import SwapRun
from solvers.plotting.svg import line_chart
from traces.synthetic import Synthetic, generate

SEED, TRIALS, TEMPERATURE = 0, 300_000, 0.03
BASE = {"L": 12, "E": 32, "G": 4, "T": 10_000}
STEPS = ("profile", "tables", "score", "trials", "bound step")
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed")
WIDTH, HEIGHT, LEGEND = 460, 240, 30  # pixels of a chart, and above it


def steps(size: dict[str, int]) -> dict[str, Callable[[], Any]]:
    """Return what is timed at one size, everything it needs made and every loop compiled."""
    parameters = Synthetic(
        num_layers=size["L"], num_experts=size["E"], top_k=4, num_tokens=size["T"], seed=SEED, tokens_per_sequence=64
    )
    trace = generate(parameters)
    profile = traces.Profile.of(trace)
    problem = placement.Problem(profile, placement.Topology.of((size["G"],)))
    table = np.tile(np.arange(size["E"], dtype=np.int32), (size["L"], 1))
    model = ItemModel(problem, table)
    start = np.tile(np.arange(size["E"]) // problem.slots_per_gpu, (size["L"], 1))
    run = SwapRun(model, start, (SEED,))
    bound = ChainBound(problem)
    relaxation = bound.relaxation(bound.windows(2)[0])
    work: dict[str, Callable[[], Any]] = {
        "profile": lambda: traces.Profile.of(trace),
        "tables": lambda: ItemModel(problem, table),
        "score": lambda: placement.score(problem, table),
        "trials": lambda: run.run_at(TRIALS, TEMPERATURE),
        "bound step": lambda: relaxation.iterate(1),
    }
    for step in work.values():
        step()
    return work


def measure(letter: str, doublings: int, rounds: int) -> list[dict[str, float]]:
    """Return the medians of all steps at each size."""
    sizes = [BASE | {letter: BASE[letter] * 2**power} for power in range(doublings + 1)]
    work = [steps(size) for size in sizes]
    variants = {(number, name): step for number, named in enumerate(work) for name, step in named.items()}
    found = interleaved(
        {f"{number} {name}": (lambda step=step: seconds(step)) for (number, name), step in variants.items()}, rounds
    )
    return [{name: statistics.median(found[f"{number} {name}"]) for name in STEPS} for number in range(len(sizes))]


def drawing(charts: list[str]) -> str:
    """Return the charts below each other as one SVG, with a legend."""
    style = "text{font:11px sans-serif}.grid{stroke:#ddd}polyline{fill:none;stroke-width:2}" + "".join(
        f".s{number}{{stroke:{colour}}}.dot.s{number}{{fill:{colour}}}" for number, colour in enumerate(COLOURS)
    )
    parts = [f"<style>{style}</style>"]
    for number, name in enumerate(STEPS):
        parts.append(f'<text x="{52 + 80 * number}" y="20" style="fill:{COLOURS[number]}">{name}</text>')
    for number, chart in enumerate(charts):
        plain = chart[chart.index("<svg") :]  # its caption is HTML
        place = f'<svg y="{LEGEND + HEIGHT * number}" width="{WIDTH}" height="{HEIGHT}"'
        parts.append(plain.replace("<svg", place, 1))
    size = f'width="{WIDTH}" height="{LEGEND + HEIGHT * len(charts)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(parts)}</svg>\n'


def main() -> None:
    """Print the table, and write the chart if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--doublings", type=int, default=3, help="doublings of each size (default: %(default)s)")
    parser.add_argument("--svg", type=Path, help="chart to write: time over size, both in doublings")
    arguments = parser.parse_args()
    base = ", ".join(f"{letter} = {value:,}" for letter, value in BASE.items())
    print(conditions(f"synthetic, top-4, from {base}", SEED, f"{available_cores()} threads, {arguments.rounds} rounds"))
    print(f"milliseconds at the base, and the factor per doubling; {TRIALS:,} trials\n")
    neighbours, rows, charts = Neighbours(), [], []
    for letter in BASE:
        found = measure(letter, arguments.doublings, arguments.rounds)
        first, last = found[0], found[-1]
        sizes = [BASE[letter] * 2**power for power in range(len(found))]
        factors = [(last[name] / first[name]) ** (1 / arguments.doublings) for name in STEPS]
        rows.append([f"{letter}: {sizes[0]:,} to {sizes[-1]:,}", *(f"{value:.2f}" for value in factors)])
        series = [
            (name, list(range(len(found))), [math.log2(at[name] / first[name]) for at in found]) for name in STEPS
        ]
        charts.append(line_chart(series, x_label=f"doublings of {letter}", y_label="doublings of the time"))
    rows.insert(0, ["ms at the base", *(f"{1e3 * first[name]:.2f}" for name in STEPS)])
    print(table(["", *STEPS], rows))
    print(f"\n{neighbours}")
    if arguments.svg is not None:
        arguments.svg.write_text(drawing(charts))
        print(f"chart: {arguments.svg}")


if __name__ == "__main__":
    main()
