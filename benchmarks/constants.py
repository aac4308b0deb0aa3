"""What tuning constants are worth: each that was chosen by trial halved and doubled, by score or bound at equal work.

Run: ``python benchmarks/constants.py --measure [WORD] [--seeds N]``; without, the constants are listed only. Results
depend on the work alone, not on the machine. A constant is taken from the source: one in capitals whose comment says
"by trial". Those of compiled loops can't be changed from outside, and are named at the end. Positive changes are
losses: a higher score, or a lower bound.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import pkgutil
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from _harness import conditions, table

import placement
import solvers
import traces
from traces.synthetic import Synthetic, generate

BY_TRIAL = re.compile(r"\bby\s+(?:#\s+)?trial", re.IGNORECASE)
MADE = Synthetic(num_layers=6, num_experts=32, top_k=2, num_tokens=6000, seed=1, tokens_per_sequence=100)
FACTORS = (0.5, 2.0)


@dataclass(frozen=True)
class Constant:
    """A constant in the source."""

    module: ModuleType
    name: str
    value: Any
    compiled: bool


@cache
def problem(kind: str) -> placement.Problem:
    """Return a problem that a kind of search is for."""
    few = Synthetic(num_layers=2, num_experts=12, top_k=3, num_tokens=2000, seed=2, tokens_per_sequence=100)
    profile = traces.Profile.of(generate(few if kind in ("sets", "CP-SAT") else MADE))
    dispatch = placement.Objective(execution="dispatch")
    capped = placement.Constraints(load_cap=1.1)
    machine, slots, objective, constraints = {
        "pairs": ("2x4", 0, None, capped),
        "pairs with replicas": ("2x4", 5, None, capped),
        "tokens": ("2x4", 5, placement.Objective(execution="dispatch", dedup="node"), capped),
        "loads": ("2x4", 5, placement.Objective(execution="dispatch", dedup="none", load_spread_weight=0.0), None),
        "budget": ("2x4", 6, dispatch, placement.Constraints(load_cap=1.1, extra_replicas=24)),
        "fan-out": ("1x4", 0, dispatch, capped),
        "sets": ("1x3", 0, dispatch, capped),
        "CP-SAT": ("1x3", 0, None, capped),
    }[kind]
    return placement.Problem(
        profile,
        placement.Topology.parse(machine),
        slots,
        objective=objective or placement.Objective(),
        constraints=constraints or placement.Constraints(),
    )


def score_of(kind: str, solver: str, work: int) -> Callable[[int], float]:
    """Return what gives a search's score."""
    limits = solvers.Limits(work=work)
    return lambda seed: solvers.solve(problem(kind), solver, limits=limits, seed=seed, workers=1).score.total


def bound_of(kind: str, work: int) -> Callable[[int], float]:
    """Return what gives the bound that the portfolio proves, below 0 so that less is better."""
    limits = solvers.Limits(work=work)
    return lambda seed: -(solvers.solve(problem(kind), "auto", limits=limits, seed=seed, workers=1).plan.bound or 0.0)


def front_of(kind: str, work: int) -> Callable[[int], float]:
    """Return what gives a front's cost, the mean over points."""

    def run(seed: int) -> float:
        found = solvers.front(problem(kind), limits=solvers.Limits(work=work), seed=seed, workers=1)
        return statistics.mean(found.cost(point) * point.imbalance for point in found.points)

    return run


PROBES = {
    "pairs": score_of("pairs", "annealing", 8_000_000),
    "pairs, replicas": score_of("pairs with replicas", "annealing", 8_000_000),
    "tokens": score_of("tokens", "annealing", 100_000),
    "budget": score_of("budget", "annealing", 200_000),
    "loads": score_of("loads", "load_search", 400_000),
    "balance": score_of("loads", "load_balance", 400_000),
    "sets": score_of("sets", "set_partition", 300_000),
    "CP-SAT": score_of("CP-SAT", "cp_sat", 1_000_000),
    "assignment": score_of("pairs", "assignment", 400_000),
    "auto, pairs": score_of("pairs", "auto", 1_000_000),
    "auto, fan-out": score_of("fan-out", "auto", 1_000_000),
    "bound, pairs": bound_of("pairs", 6_000_000),
    "bound, fan-out": bound_of("fan-out", 1_500_000),
    "front": front_of("tokens", 300_000),
}
# By the start of a module's name: the probes that may feel its constants.
FELT = {
    "solvers.bounds": ("bound, pairs", "bound, fan-out"),
    "solvers.fronts": ("front",),
    "solvers.arrange.replica_budget": ("budget",),
    "solvers.arrange": ("pairs", "pairs, replicas", "budget"),
    "solvers.methods.annealing.tables": ("pairs", "pairs, replicas"),
    "solvers.methods.annealing.replay": ("tokens", "budget"),
    "solvers.methods.annealing": ("pairs", "pairs, replicas", "tokens"),
    "solvers.methods.load_search": ("loads",),
    "solvers.methods.load_balance": ("balance",),
    "solvers.methods.set_partition": ("sets",),
    "solvers.methods.cp_sat": ("CP-SAT",),
    "solvers.methods.assignment": ("assignment",),
    "solvers.methods.auto": ("auto, pairs", "auto, fan-out"),
}


def constants() -> Iterator[Constant]:
    """Find the constants whose comment, on the line or the lines above, says that they were chosen by trial."""
    for info in pkgutil.walk_packages(solvers.__path__, "solvers."):
        module = importlib.import_module(info.name)
        source = inspect.getsource(module)
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
                continue
            name, first = node.targets[0].id, node.lineno - 1
            above = first
            while above and lines[above - 1].startswith("#"):
                above -= 1
            told = " ".join([*lines[above:first], *lines[first : node.end_lineno]])
            if name.isupper() and BY_TRIAL.search(told):
                yield Constant(module, name, getattr(module, name), ".kernels" in info.name)


def scaled(value: Any, factor: float) -> Any:
    """Return a number, or each of several, times a factor: whole ones stay whole, shares stay below 1."""
    if isinstance(value, tuple):
        return tuple(scaled(item, factor) for item in value)
    if isinstance(value, int):
        return max(1, round(value * factor))
    return min(value * factor, 0.95) if 0 < value < 1 else value * factor


@contextmanager
def changed(constant: Constant, value: Any) -> Iterator[None]:
    """Give a constant another value, wherever it was imported to."""
    mark = f"from {constant.module.__name__} import"
    places = [constant.module] + [
        module
        for name, module in sys.modules.items()
        if name.startswith("solvers.") and hasattr(module, constant.name) and mark in inspect.getsource(module)
    ]
    for module in places:
        setattr(module, constant.name, value)
    try:
        yield
    finally:
        for module in places:
            setattr(module, constant.name, constant.value)


def felt_by(module: str) -> tuple[str, ...]:
    """Return the probes of a module: those of the longest start of its name."""
    known = [start for start in FELT if module.startswith(start)]
    return FELT[max(known, key=len)] if known else ()


def _place(constant: Constant) -> str:
    return f"{constant.module.__name__.removeprefix('solvers.')}.{constant.name}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs="?", const="", metavar="WORD", help="those with WORD in their names; all")
    parser.add_argument("--seeds", type=int, default=2, help="searches per value (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.measure is None:
        every = [[_place(constant), str(constant.value)] for constant in constants()]
        print(table(["constant", "value"], every))
        return
    print(conditions(f"synthetic, {MADE.num_layers} x {MADE.num_experts}", MADE.seed, "1 thread, equal work"), "\n")
    seeds = range(arguments.seeds)

    @cache
    def usual(probe: str) -> list[float]:
        return [PROBES[probe](seed) for seed in seeds]

    rows, left = [], []
    for constant in constants():
        place = _place(constant)
        if arguments.measure.lower() not in place.lower():
            continue
        probes = felt_by(constant.module.__name__)
        if constant.compiled or not probes:
            left.append(place)
            continue
        for probe in probes:
            told = []
            for factor in FACTORS:
                with changed(constant, scaled(constant.value, factor)):
                    found = [PROBES[probe](seed) for seed in seeds]
                losses = [(new - old) / abs(old) for new, old in zip(found, usual(probe), strict=True) if old]
                told.append("the same" if found == usual(probe) else f"{statistics.mean(losses):+.2%}")
            rows.append([place, str(constant.value), probe, *told])
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    print(table(["constant", "value", "probe", "halved", "doubled"], rows))
    if left:
        print(f"\nNot changed here: {', '.join(left)}.")


if __name__ == "__main__":
    main()
