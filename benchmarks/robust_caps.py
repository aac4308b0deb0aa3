"""Load caps on tokens that were not seen: k-fold cross-validation over sequences, caps on means and on quantiles.

Run: ``python benchmarks/robust_caps.py [TRACE ...] [--folds K] [--time-limit S] [--variant CAP[@QUANTILE]]``.
Fold k holds out the sequences with ``seq_id % K == k`` and fits on all others. The sample trace by default. Target: on
held-out sequences, at least 20 % fewer crossings on 4 GPUs than load-only packing, at an imbalance within .03 of its.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import numpy as np
import numpy.typing as npt
from _harness import Neighbours, available_cores, conditions, table

import placement
import solvers
import traces

SAMPLE = Path(__file__).parent.parent / "examples" / "tiny_moe" / "tiny_moe.npz"
SEED = 0
FEWER, ABOVE = 0.2, 0.03  # the target
VARIANTS = ("1.02", "1.05", "1.05@0.9", "1.05@0.95", "1.06@0.95", "1.08@0.95")
HEADER = [
    "",
    "crossings, fitted",
    "crossings, held out",
    "fewer than load-only",
    "least to most",
    "max/mean, fitted",
    "held out",
    "above load-only",
]

Figures = tuple[float, float, float, float]


def split(trace: traces.Trace, fold: int, folds: int) -> tuple[traces.Trace, traces.Trace]:
    """Return all sequences but those of a fold, and those of the fold."""

    def in_fold(batch: traces.Batch) -> npt.NDArray[np.bool_]:
        assert batch.seq_id is not None
        mask: npt.NDArray[np.bool_] = batch.seq_id % folds == fold
        return mask

    fit = trace.where(lambda batch: ~in_fold(batch), f"all but fold {fold} of {folds}")
    return fit, trace.where(in_fold, f"fold {fold} of {folds}")


def plan(problem: placement.Problem, solver: str, time_s: float) -> placement.Plan:
    """Return a plan; load-only packing ends by itself."""
    return solvers.solve(problem, solver, limits=solvers.Limits(time_s=time_s), seed=SEED).plan


def figures(found: placement.Plan, parts: tuple[traces.Trace, traces.Trace], topology: placement.Topology) -> Figures:
    """Return crossings and mean over layers of max/mean load, each on the fitted and the held-out tokens."""
    fit, held = (placement.evaluate(found, part, topology) for part in parts)
    loads = fit.imbalance_max_over_mean, held.imbalance_max_over_mean
    return fit.cross_gpu_fraction, held.cross_gpu_fraction, *loads


def validate(
    trace: traces.Trace, topology: placement.Topology, variants: list[str], folds: int, time_s: float
) -> dict[str, list[Figures]]:
    """Return the figures of every fold: EPLB without replicas (load-only packing), then each variant of the cap."""
    found: dict[str, list[Figures]] = {"load only": []}
    for fold in range(folds):
        fit, held = split(trace, fold, folds)
        profile = traces.Profile.of(fit)
        loads = placement.Problem(profile, topology)
        found["load only"].append(figures(plan(loads, "eplb", time_s), (fit, held), topology))
        for variant in variants:
            cap, _, quantile = variant.partition("@")
            constraints = placement.Constraints(
                load_cap=float(cap), load_quantile=float(quantile) if quantile else None
            )
            problem = placement.Problem(profile, topology, constraints=constraints)
            found.setdefault(f"cap {cap}" + (f" at {quantile}" if quantile else ""), []).append(
                figures(plan(problem, "annealing", time_s), (fit, held), topology)
            )
    return found


def rows(found: dict[str, list[Figures]]) -> list[list[str]]:
    """Return a line per variant: means over the folds."""
    crossed_by_loads, least = (mean(fold[column] for fold in found["load only"]) for column in (1, 3))
    lines = []
    for name, folds in found.items():
        crossed, held, loaded, held_load = (mean(values) for values in zip(*folds, strict=True))
        span = f"{min(fold[1] for fold in folds):.4f} to {max(fold[1] for fold in folds):.4f}"
        fewer = f"{1 - held / crossed_by_loads:.1%}"
        lines.append([name, f"{crossed:.4f}", f"{held:.4f}", fewer, span, f"{loaded:.3f}", f"{held_load:.3f}"])
        lines[-1].append(f"{held_load - least:+.3f}")
    return lines


def verdict(found: dict[str, list[Figures]]) -> str:
    """Say which variants reach the target, means over the folds."""
    crossed, held_load = (mean(fold[column] for fold in found["load only"]) for column in (1, 3))
    reached = [
        name
        for name, folds in found.items()
        if mean(fold[1] for fold in folds) <= (1 - FEWER) * crossed
        and mean(fold[3] for fold in folds) <= held_load + ABOVE
    ]
    target = f"at least {FEWER:.0%} fewer crossings, at most {ABOVE} above load-only packing, both held out"
    return f"{target}: {', '.join(reached) or 'NO variant'}"


def main() -> None:
    """Print one table per trace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="*", type=Path, default=[SAMPLE], help="trace with seq_id")
    parser.add_argument("--folds", type=int, default=2, help="parts of the sequences (default: %(default)s)")
    parser.add_argument("--gpus", type=int, default=4, help="GPUs of one node (default: %(default)s)")
    parser.add_argument("--time-limit", type=float, default=1.0, help="seconds per plan (default: %(default)s)")
    parser.add_argument("--variant", action="append", help=f"cap, or cap@quantile; repeatable ({' '.join(VARIANTS)})")
    options = parser.parse_args()
    if options.folds < 2:
        parser.error("--folds must be at least 2")
    topology = placement.Topology.parse(f"1x{options.gpus}")
    names = ", ".join(path.name for path in options.trace)
    print(conditions(names, SEED, f"{available_cores()} threads, {options.time_limit:g} s each"))
    neighbours = Neighbours()
    for path in options.trace:
        trace = traces.load(path)
        if not isinstance(trace, traces.Trace) or "seq_id" not in trace.columns:
            parser.error(f"{path} has no seq_id to cut folds by")
        print(f"\n{path.name}, {topology.name}, {options.folds} folds of sequences\n")
        variants = options.variant or list(VARIANTS)
        found = validate(trace, topology, variants, options.folds, options.time_limit)
        print(f"{table(HEADER, rows(found))}\n\n{verdict(found)}", flush=True)
    print(f"\n{neighbours}")


if __name__ == "__main__":
    main()
