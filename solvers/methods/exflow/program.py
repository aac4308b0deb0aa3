"""ExFlow's integer programmes, as a program of its own: a solver that ignores cancellation can be killed.

Run as ``python -P program.py FOLDER``: reads ``model.npz`` and ``model.json`` there and writes ``outcome.json``,
anew after every step. It imports nothing of this package, so that it starts fast.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Effort", "Found", "Solve", "crossings", "renamable", "solve_steps"]

INTEGRALITY = 1e-4  # distance from 0 and 1 that is rounding: CBC's own tolerance is 1e-6
LEAST_S = 0.05  # library solvers do nothing useful in less; chosen by trial
TRIALS_PER_UNIT = 1_000_000  # as in `solvers.searching.cp_sat`, which this program does not import
TRIALS_PER_NODE = 1000  # of CBC: a node solves a linear program; chosen by trial, not measured
FEWEST_ITERATIONS, MOST_ITERATIONS = 1000, 2000  # of CBC's relaxations under a work limit; chosen by trial

Ints = npt.NDArray[np.int64]
Found = tuple[str, Ints]


def crossings(affinity: Ints, gpu: npt.NDArray[np.integer[Any]]) -> int:
    """Return the objective: pairs whose experts are on different GPUs.

    Parameters
    ----------
    affinity : (L-1, n, n) int64
    gpu : (L, n) integers
        GPU, or part, of each expert.
    """
    return int(affinity[gpu[:-1, :, None] != gpu[1:, None, :]].sum())


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What one model may take: until when and how much work (None for no limit), threads, and a folder for files."""

    deadline: float | None = None
    work: int | None = None
    threads: int = 1
    folder: str | None = None

    @property
    def left(self) -> float | None:
        """Seconds left: to ask for when the library is loaded and the model is built, which takes time as well."""
        return None if self.deadline is None else max(0.0, self.deadline - time.time())


Solve = Callable[[Ints, dict[str, Any], Ints, Effort], Found]


def solve_steps(
    affinity: Ints,
    steps: list[dict[str, Any]],
    *,
    solve: Solve | None = None,
    deadline: float | None = None,
    work: int | None = None,
    threads: int = 1,
    folder: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Solve models one after the other, each for the parts of one run of GPUs.

    Parameters
    ----------
    affinity : (L-1, E, E) int64
    steps : list of dict
        The fields of each `solvers.methods.exflow.steps.Step`.
    solve : callable, optional
        Solves one model: given its pairs, its step, parts to start from (L, n) and its `Effort`, it returns status and
        parts, those of the start without a solution. PuLP by default.
    deadline : float, optional
        ``time.time()`` at which to return. Steps share time and work by the sizes of their models.
    work : int, optional
        Trial changes after which to stop, over all steps.
    threads : int
        For solvers that can use several; CBC runs on one.
    folder : str, optional
        Where the solver puts its files.

    Yields
    ------
    dict
        After each step: ``status`` ("optimal": all steps are solved, each proven by itself; "feasible"; "none": no step
        has a solution yet), ``crossings`` (pairs that cross) and ``gpu`` (L, E). Where a step has no solution, its
        experts are in order.
    """
    rows = np.arange(len(affinity) + 1)[:, None]
    gpu = np.zeros((len(rows), affinity.shape[1]), np.int64)  # first GPU of the run that each expert is on
    sizes = [step["experts"] ** 2 * len(step["parts"]) for step in steps]
    solve = _solve_with_pulp if solve is None else solve
    found: list[str] = []
    for number, step in enumerate(steps):
        members = _members(gpu, step)
        pairs = np.stack([counts[np.ix_(*members[layer : layer + 2])] for layer, counts in enumerate(affinity)])
        status, part = "optimal", _in_order(step, len(rows))
        now, share = time.time(), sizes[number] / sum(sizes[number:])
        effort = Effort(
            deadline=None if deadline is None else now + max(0.0, deadline - now) * share,
            work=None if work is None else max(1, work * sizes[number] // sum(sizes)),
            threads=threads,
            folder=folder,
        )
        if pairs.any():
            status, part = solve(pairs, step, part, effort)
        gpu[rows, members] = np.array(step["parts"])[part]
        found.append(status)
        whole = gpu.copy()
        for later in steps[number + 1 :]:
            whole[rows, _members(whole, later)] = np.array(later["parts"])[_in_order(later, len(rows))]
        complete = len(found) == len(steps) and set(found) == {"optimal"}
        status = "optimal" if complete else "none" if set(found) == {"none"} else "feasible"
        yield {"status": status, "crossings": crossings(affinity, whole), "gpu": whole.tolist()}


def _members(gpu: Ints, step: dict[str, Any]) -> Ints:
    """Return the experts of each layer that are on the run of a step, (L, n), rising."""
    return np.nonzero(gpu == step["first"])[1].reshape(len(gpu), step["experts"])


def _in_order(step: dict[str, Any], num_layers: int) -> Ints:
    """Return parts (L, n) that are filled one after the other."""
    return np.tile(np.array(step["order"], np.int64), (num_layers, 1))


def renamable(step: dict[str, Any]) -> bool:
    """Whether the parts may be renamed freely; then they are numbered by their first expert of layer 0."""
    return len(set(step["low"])) == len(set(step["high"])) == 1


def _solve_with_pulp(affinity: Ints, step: dict[str, Any], start: Ints, effort: Effort) -> Found:
    """Minimise the pairs that cross with PuLP; return status and parts (L, n), those of `start` without a solution."""
    import pulp

    layers, experts, parts = range(len(affinity) + 1), range(affinity.shape[1]), range(len(step["parts"]))
    problem = pulp.LpProblem("exflow", pulp.LpMinimize)
    x = problem.add_variable_dicts("x", (layers, experts, parts), 0, 1, pulp.LpBinary)
    pairs = [tuple(int(v) for v in index) for index in np.argwhere(affinity > 0)]
    names = [f"{layer}_{i}_{j}" for layer, i, j in pairs]
    # Continuous suffices: with x integral, the least R that the rows allow is 0 or 1.
    crossing = problem.add_variable_dicts("R", names, 0, 1, pulp.LpContinuous)
    problem += pulp.lpSum(int(affinity[pair]) * crossing[name] for pair, name in zip(pairs, names, strict=True))
    for layer in layers:
        for i in experts:
            problem += pulp.lpSum(x[layer][i][g] for g in parts) == 1
        for g, low, high in zip(parts, step["low"], step["high"], strict=True):
            held = pulp.lpSum(x[layer][i][g] for i in experts)
            problem += held == high if low == high else held <= high  # low is 0 where the two differ
    for (layer, i, j), name in zip(pairs, names, strict=True):
        for g in parts:
            problem += crossing[name] - x[layer][i][g] + x[layer + 1][j][g] >= 0
            problem += crossing[name] + x[layer][i][g] - x[layer + 1][j][g] >= 0
    if renamable(step):
        for i in experts:
            for g in parts[i + 1 :]:
                problem += x[0][i][g] == 0
    if effort.left is not None and effort.left <= LEAST_S:
        return "none", start
    status = _outcome(problem, problem.solve(_pulp_solver(effort)))
    values = np.array([[[x[layer][i][g].varValue or 0.0 for g in parts] for i in experts] for layer in layers])
    # CBC stopped in the root's relaxation leaves fractions that PuLP takes for a solution.
    if status == "none" or (np.minimum(abs(values), abs(1 - values)) > INTEGRALITY).any():
        return "none", start
    return status, values.argmax(axis=2)


def _pulp_solver(effort: Effort) -> Any:
    """Return the solver that this PuLP comes with: CBC up to PuLP 3, CP-SAT from PuLP 4 on."""
    import pulp

    work = effort.work
    if hasattr(pulp, "PULP_CBC_CMD"):
        nodes = None if work is None else max(1, work // TRIALS_PER_NODE)
        # A node limit stops neither the root's relaxation nor its cuts and heuristics, which may take minutes.
        iterations = 0 if work is None else int(np.clip(work // TRIALS_PER_NODE, FEWEST_ITERATIONS, MOST_ITERATIONS))
        options = [] if work is None else ["cuts off", "heuristicsOnOff off", f"maxIterations {iterations}"]
        solver = pulp.getSolver("PULP_CBC_CMD", msg=False, timeLimit=effort.left, maxNodes=nodes, options=options)
        solver.tmpDir = effort.folder or solver.tmpDir
        return solver
    extra = {} if work is None else {"max_deterministic_time": work / TRIALS_PER_UNIT}
    return pulp.getSolver("CPSAT", msg=False, timeLimit=effort.left, threads=effort.threads, random_seed=0, **extra)


def _outcome(problem: Any, returned: Any) -> str:
    """Read what a solve proved: "optimal", "feasible" (a solution, nothing proven) or "none".

    PuLP 3 reports "Optimal" for the best solution at a time limit; only its solution status tells the two apart. PuLP 4
    returns an object that keeps why the solver stopped apart from whether there is a solution.
    """
    import pulp

    if hasattr(returned, "has_solution"):
        found, proven = bool(returned.has_solution), returned.status == pulp.constants.LpSolveStatus.Optimal
    else:
        found = problem.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
        proven = problem.sol_status == pulp.LpSolutionOptimal
    return "none" if not found else "optimal" if proven else "feasible"


def main(folder: Path) -> None:
    """Solve the models in `folder`."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    settings = json.loads((folder / "model.json").read_text())
    with np.load(folder / "model.npz") as arrays:
        affinity = arrays["affinity"]
    for outcome in solve_steps(affinity, folder=str(folder), **settings):
        partial = folder / "outcome.part"
        partial.write_text(json.dumps(outcome))
        partial.rename(folder / "outcome.json")


def _die_with_parent() -> None:
    """Kill this process and the solver that it started once the parent's end of the pipe closes."""
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
