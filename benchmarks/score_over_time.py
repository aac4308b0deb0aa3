"""The score over time of `auto` at the size of DeepSeek-V3: records one search, or draws several records.

Run: ``python benchmarks/score_over_time.py [--time-limit S] [--seed N] [--record FILE]``; once more from a checkout of
another version, with that checkout first in PYTHONPATH; then ``--draw FILE... --svg FILE`` (the extra ``plots``).
Synthetic 58 x 256, top-8, 4 of 8 groups, 60,000 tokens (seed 5; half of them fitted), 8x8 with 5 slots, one message per
node, weights 1, 30 and 60. The clock is the search's own: reading and judging are not in it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _harness import Neighbours, conditions

import placement
import solvers
import traces
from traces.synthetic import Synthetic, generate

TRACE = Synthetic(
    num_layers=58,
    num_experts=256,
    top_k=8,
    num_tokens=60_000,
    groups=8,
    group_limit=4,
    tokens_per_sequence=300,
    seed=5,
)


def recorded(time_limit: float, seed: int) -> dict[str, Any]:
    """Return what one search reports: elapsed seconds with the score and the bound from then on."""
    weights: dict[str, Any] = {"traffic_weight": 1.0, "imbalance_weight": 30.0, "load_spread_weight": 60.0}
    objective = placement.Objective(execution="dispatch", dedup="node", **weights)
    fit, _ = generate(TRACE).split(0.5)
    problem = placement.Problem(traces.Profile.of(fit), placement.Topology.parse("8x8"), 5, objective)
    solvers.solve(problem, "auto", limits=solvers.Limits(time_s=2), seed=seed)  # compiles
    found: list[tuple[float, float | None, float | None]] = []

    def observe(event: Any) -> None:
        found.append((round(event.elapsed_s, 2), event.score, event.bound))

    solution = solvers.solve(problem, "auto", limits=solvers.Limits(time_s=time_limit), seed=seed, observe=observe)
    score = solution.score.total
    return {"time_limit_s": time_limit, "seed": seed, "score": score, "points": thinned(found)}


def thinned(found: list[tuple[float, float | None, float | None]]) -> list[list[float | None]]:
    """Return what changes a tenth of a per cent or more, and the last."""
    kept: list[list[float | None]] = []
    for elapsed, score, bound in found:
        last = kept[-1] if kept else [0.0, None, None]
        pairs = ((score, last[1]), (bound, last[2]))
        apart = [a is not None and (b is None or abs(a - b) > 1e-3 * abs(b)) for a, b in pairs]
        if any(apart) or elapsed == found[-1][0]:
            kept.append([elapsed, score, bound])
    return kept


def draw(files: list[Path], svg: Path) -> None:
    """Draw score and bound of each record over a logarithmic axis of time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot(xlabel="seconds of search, 2 cores", ylabel="score (solid), bound (dashed)", xscale="log")
    for number, file in enumerate(files):
        record = json.loads(file.read_text(encoding="utf-8"))
        for column, style in ((1, "-"), (2, "--")):
            points = [row for row in record["points"] if row[column] is not None]
            x, y = [max(row[0], 0.1) for row in points], [row[column] for row in points]
            label = file.stem if column == 1 else None
            axes.step([*x, record["time_limit_s"]], [*y, y[-1]], style, where="post", color=f"C{number}", label=label)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, color="#ddd")
    axes.legend()
    figure.savefig(svg, metadata={"Date": None})


def main() -> None:
    """Record or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", type=float, default=20.0, help="seconds (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="file to write the points to")
    parser.add_argument("--draw", type=Path, nargs="+", help="records to draw, instead of a search")
    parser.add_argument("--svg", type=Path, help="picture to draw them in")
    options = parser.parse_args()
    if (options.draw is None) != (options.svg is None):
        parser.error("--draw and --svg go together")
    if options.draw:
        draw(options.draw, options.svg)
        return
    print(conditions("synthetic 58 x 256, seed 5", options.seed, f"all threads, {options.time_limit:g} s"))
    neighbours, record = Neighbours(), recorded(options.time_limit, options.seed)
    for elapsed, score, bound in record["points"]:
        print(f"{elapsed:8.2f} s  score {score}  bound {bound}")
    print(f"score {record['score']:.3f}; {neighbours}")
    if options.record:
        options.record.write_text(json.dumps(record) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
