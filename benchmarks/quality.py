"""Methods x instances x seeds: objective, gap, traffic and imbalance on fitted and held-out tokens, time, memory.

Run: ``python benchmarks/quality.py [--instance NAME ...] [--method NAME[:OPTION=VALUE,...] ...] [--seeds N]``.
``--list`` shows the instances of ``instances.py``; the protocol is in ``benchmarks/README.md``. Every run is a process
of its own. Methods take turns within a seed, so that a slow spell of the machine hits all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from _harness import Neighbours, available_cores, conditions, in_child, table
from instances import INSTANCES, MissingTraceError, listing

import placement
import solvers
import traces

DEFAULT_INSTANCES = ("sample_1x4_cap", "sample_2x2_replicas", "26x64_1x8_cap")
DEFAULT_METHODS = ("contiguous", "eplb", "assignment", "auto")
WARM_UP_WORK = 20_000
UNPREPARED = ("exflow", "moetuner", "cp_sat")  # programmes of libraries: nothing to compile, and no short run
HEADER = [
    "",
    "objective, median",
    "least to most",
    "above the best",
    "gap",
    "traffic, fitted",
    "held out",
    "max/mean, fitted",
    "held out",
    "seconds",
    "peak MB",
    "plan",
]
LOOK_AT = """\
What to look at: the objective is what the methods were asked to minimise, on the tokens that they were given; `above
the best` is the median over seeds against the best run of any method here. A plan called infeasible misses the load
cap, and its objective is mostly penalty. The gap is proven: no plan is better by more, whatever the method. The
held-out columns say what is left on other sequences; they decide which plan to use. `least to most` is the spread over
seeds: a difference between two methods that is smaller than the spread of either is none."""

Loaded = tuple[placement.Problem, traces.Trace, traces.Trace]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One method on one instance with one seed.

    Attributes
    ----------
    outcome : str
        ``optimal``, ``feasible``, ``infeasible``, ``no_plan``, or ``failed: ...``.
    objective, bound, gap : float or None
        Of the plan, on the fitted tokens.
    traffic_fit, traffic_held, imbalance_fit, imbalance_held : float or None
        By replay: the traffic term, and the mean over layers of max/mean load.
    found_by : str
    limit : str or None
        What ended the search.
    seconds : float
        Of the search alone.
    peak_bytes : int
        Of the process: interpreter, libraries and profile included.
    """

    instance: str
    method: str
    seed: int
    outcome: str
    objective: float | None = None
    bound: float | None = None
    gap: float | None = None
    traffic_fit: float | None = None
    traffic_held: float | None = None
    imbalance_fit: float | None = None
    imbalance_held: float | None = None
    found_by: str = ""
    limit: str | None = None
    seconds: float = 0.0
    peak_bytes: int = 0


@lru_cache(maxsize=1)
def loaded(name: str) -> Loaded:
    """Return problem, fitted and held-out tokens of an instance; once per process."""
    fit, held = INSTANCES[name].parts()
    return INSTANCES[name].problem(fit), fit, held


def method_of(text: str) -> tuple[str, dict[str, Any]]:
    """Return name and options of ``name:key=value,key=value``; values as JSON where they are, else as text."""
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, _, value = item.partition("=")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return name, options


def search(name: str, method: str, seed: int, limits: solvers.Limits, judge: bool) -> dict[str, Any]:
    """Solve an instance, in a child process, and `judge` the plan by replay; return the fields of a `Run`."""
    problem, fit, held = loaded(name)
    solver, options = method_of(method)
    if not judge and solver in UNPREPARED:
        return {}
    try:
        solution = solvers.solve(problem, solver, limits=limits, seed=seed, options=options)
    except solvers.NoPlanError as error:
        return {"outcome": "no_plan", "limit": error.termination.limit}
    if not judge:
        return {}
    plan, instance = solution.plan, INSTANCES[name]
    on_fit, on_held = (instance.evaluate(plan, tokens) for tokens in (fit, held))
    return {
        "outcome": solution.termination.reason,
        "objective": plan.score,
        "bound": plan.bound,
        "gap": plan.gap,
        "traffic_fit": on_fit.traffic,
        "traffic_held": on_held.traffic,
        "imbalance_fit": on_fit.imbalance_max_over_mean,
        "imbalance_held": on_held.imbalance_max_over_mean,
        "found_by": plan.provenance["found_by"],
        "limit": solution.termination.limit,
        "seconds": solution.elapsed_s,
    }


def run(name: str, method: str, seed: int, limits: solvers.Limits) -> Run:
    """Do one run in a process of its own; a failure is a result too."""
    warm_up = (name, method, seed, solvers.Limits(work=WARM_UP_WORK), False)
    try:
        sample = in_child(search, (name, method, seed, limits, True), warm_up, available_cores())
    except Exception as error:
        return Run(instance=name, method=method, seed=seed, outcome=f"failed: {error}")
    return Run(instance=name, method=method, seed=seed, peak_bytes=sample.peak_bytes, **sample.result)


def compare(name: str, methods: list[str], seeds: int, limits: solvers.Limits) -> tuple[list[Run], list[str]]:
    """Return all runs on an instance, and why methods were left out."""
    problem, _, _ = loaded(name)
    reasons = {text: solvers.solver_from(*method_of(text)).supports(problem) for text in methods}
    left_out = [f"left out: {text}: {reason}" for text, reason in reasons.items() if reason]
    takes = [text for text, reason in reasons.items() if not reason]
    runs = [run(name, text, seed, limits) for seed in range(seeds) for text in (takes[::-1] if seed % 2 else takes)]
    return sorted(runs, key=lambda item: (methods.index(item.method), item.seed)), left_out


def rows(runs: list[Run]) -> list[list[str]]:
    """Return a line per method: medians over seeds."""
    best = min((item.objective for item in runs if item.objective is not None), default=None)
    lines = []
    for method in dict.fromkeys(item.method for item in runs):
        own = [item for item in runs if item.method == method]
        values = [item.objective for item in own if item.objective is not None]
        line = [method, "-", "-", "-"]
        if values and best is not None:
            above = median(values) - best
            line = [method, f"{median(values):.4f}", f"{min(values):.4f} to {max(values):.4f}"]
            line.append(f"{above / best:+.1%}" if best > 0 else f"{above:+.4f}")
        for field, form in (
            ("gap", ".1%"),
            ("traffic_fit", ".4f"),
            ("traffic_held", ".4f"),
            ("imbalance_fit", ".3f"),
            ("imbalance_held", ".3f"),
            ("seconds", ".2f"),
        ):
            known = [value for item in own if (value := getattr(item, field)) is not None]
            line.append(format(median(known), form) if known else "-")
        line.append(f"{max(item.peak_bytes for item in own) / 1e6:.0f}")
        outcomes = [item.outcome.partition(":")[0] for item in own]
        line.append(", ".join(f"{outcomes.count(each)} {each}" for each in dict.fromkeys(outcomes)))
        lines.append(line)
    return lines


def chosen(patterns: list[str]) -> list[str]:
    """Return the instances whose names match one of the patterns, in the registry's order."""
    return [name for name in INSTANCES if any(fnmatchcase(name, pattern) for pattern in patterns)]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--list", action="store_true", help="list the instances and end")
    add("--instance", action="append", help=f"name or pattern such as '26x64_*'; repeatable ({DEFAULT_INSTANCES})")
    add("--method", action="append", help=f"solver, or solver:option=value,...; repeatable ({DEFAULT_METHODS})")
    add("--seeds", type=int, default=2, help="seeds 0, 1, ...; ten for figures to quote (default: %(default)s)")
    add("--time-limit", type=float, default=3.0, help="seconds per run (default: %(default)s)")
    add("--work-limit", type=int, help="trial changes per run in place of the time limit: repeats exactly")
    add("--json", type=Path, help="write all runs to this file")
    given = parser.parse_args(arguments)
    given.instance = given.instance or list(DEFAULT_INSTANCES)
    given.method = list(dict.fromkeys(given.method or DEFAULT_METHODS))
    if given.seeds < 1:
        parser.error("--seeds must be at least 1")
    if unknown := [pattern for pattern in given.instance if not chosen([pattern])]:
        parser.error(f"no instance matches {', '.join(unknown)}; see --list")
    try:
        time_s = None if given.work_limit else given.time_limit
        given.limits = solvers.Limits(time_s=time_s, work=given.work_limit)
        for text in given.method:
            solvers.solver_from(*method_of(text))
    except traces.InputError as error:
        parser.error(str(error))
    return given


def main(arguments: list[str] | None = None) -> int:
    """Print one table per instance; return 1 if a run failed."""
    given = parse(arguments)
    if given.list:
        print(listing())
        return 0
    names, limits = chosen(given.instance), given.limits
    budget = f"{limits.time_s:g} s" if limits.work is None else f"{limits.work:,} trial changes"
    heading = conditions(f"{len(names)} instances", 0, f"{available_cores()} threads, {budget} each")
    print(f"{heading}\nseeds 0 to {given.seeds - 1}; even seq_id fitted, odd held out; each run a process of its own")
    neighbours, every, missing = Neighbours(), list[Run](), list[str]()
    for name in names:
        print(f"\n{name}: {INSTANCES[name]}\n", flush=True)
        try:
            runs, left_out = compare(name, given.method, given.seeds, limits)
        except MissingTraceError as error:
            missing.append(name)
            print(f"left out: {error}")
            continue
        every += runs
        failures = [f"{item.method}, seed {item.seed}: {item.outcome}" for item in runs if "failed" in item.outcome]
        print("\n".join([table(HEADER, rows(runs)), *left_out, *failures]), flush=True)
    print(f"\n{LOOK_AT}\n{neighbours}")
    if given.json is not None:
        document = {
            "conditions": heading,
            "neighbours": str(neighbours),
            "limits": asdict(limits),
            "seeds": given.seeds,
            "instances": {name: asdict(INSTANCES[name]) for name in names},
            "missing": missing,
            "runs": [asdict(item) for item in every],
        }
        given.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return int(any("failed" in item.outcome for item in every))


if __name__ == "__main__":
    sys.exit(main())
