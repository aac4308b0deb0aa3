"""Every solver on the same problems for the same time: what its plan is worth on tokens that it has not seen.

Run: ``python benchmarks/solve.py [--time-limit S]``. Even sequences are fitted, odd ones held out.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from _harness import Neighbours, available_cores, conditions, table

import placement
import solvers
import traces
from traces.synthetic import Synthetic, generate

SAMPLE = Path(__file__).parent.parent / "examples" / "tiny_moe" / "tiny_moe.npz"
SYNTHETIC = Synthetic(num_layers=26, num_experts=64, top_k=6, num_tokens=50_000, seed=0)
LOAD_CAP, SEED = 1.05, 0
WARM_UP_WORK = 20_000
HEADER = ["", "traffic, fitted", "traffic, held out", "max/mean, held out", "score", "gap", "seconds", "plan"]


def compare(trace: traces.Trace, topology: placement.Topology, time_s: float) -> str:
    """Return the table of all solvers on one trace.

    Traffic is the objective's: on one node the share of inter-layer pairs that change GPU. The score is that of the
    fitted part, penalties for a missed load cap included (such plans are called infeasible); the gap is to the lower
    bound that the same run found.
    """
    fit, held = trace.split(0.5)
    constraints = placement.Constraints(load_cap=LOAD_CAP)
    problem = placement.Problem(profile=traces.Profile.of(fit), topology=topology, constraints=constraints)
    rows: list[list[str]] = []
    notes: list[str] = []
    for name in sorted(solvers.names(), key=lambda name: name == "auto"):
        if reason := solvers.solver_from(name).supports(problem):
            notes.append(f"left out: {name}: {reason}")
        else:
            rows.append([name, *row(problem, held, name, time_s)])
    return "\n".join([table(HEADER, rows), *notes])


def row(problem: placement.Problem, held: traces.Trace, name: str, time_s: float) -> list[str]:
    """Return one solver's figures."""
    warm_up(problem, name)
    start = time.perf_counter()
    try:
        solution = solvers.solve(problem, name, limits=solvers.Limits(time_s=time_s), seed=SEED)
    except solvers.NoPlanError:
        return ["-"] * 5 + [f"{time.perf_counter() - start:.3f}", "none"]
    elapsed = time.perf_counter() - start
    verdict = placement.evaluate(solution.plan, held, problem.topology)
    traffic = next(term.value for term in solution.score.terms if term.name == "traffic")
    return [
        f"{traffic:.4f}",
        f"{verdict.traffic:.4f}",
        f"{verdict.imbalance_max_over_mean:.3f}",
        f"{solution.score.total:.4f}",
        "-" if solution.plan.gap is None else f"{solution.plan.gap:.1%}",
        f"{elapsed:.3f}",
        solution.termination.reason,
    ]


def warm_up(problem: placement.Problem, name: str) -> None:
    """Have the solver's loops compiled, which is no part of its time; an integer program has none."""
    if name != "exflow":
        solvers.solve(problem, name, limits=solvers.Limits(work=WARM_UP_WORK), seed=SEED)


def main() -> None:
    """Print one table per trace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", type=float, default=5.0, help="seconds per solver (default: %(default)s)")
    time_s = parser.parse_args().time_limit
    loaded = traces.load(SAMPLE)
    assert isinstance(loaded, traces.Trace)
    made = f"synthetic 26 x 64, top-6, {SYNTHETIC.num_tokens:,} tokens"
    print(conditions(f"{SAMPLE.name} and {made}", SEED, f"{available_cores()} threads, {time_s:g} s each"))
    cases = ((SAMPLE.name, loaded, "1x4"), (made, generate(SYNTHETIC), "1x8"))
    neighbours = Neighbours()
    for title, trace, topology in cases:
        print(f"\n{title}, {topology}, load cap {LOAD_CAP}, even seq_id fitted, odd held out\n")
        print(compare(trace, placement.Topology.parse(topology), time_s))
    print(f"\n{neighbours}")


if __name__ == "__main__":
    main()
