"""ExFlow's integer programme in PuLP, as a program of its own: a solver that ignores cancellation can be killed.

Run as ``python -P exflow_model.py FOLDER``: reads ``model.npz`` and ``model.json`` there and writes ``outcome.json``.
It imports nothing of this package, so that it starts fast.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pulp

__all__ = ["solve_model"]

INTEGRALITY = 1e-4


def solve_model(
    affinity: npt.NDArray[np.int64],
    num_gpus: int,
    count: int,
    equal: bool,
    *,
    deadline: float | None = None,
    work: int | None = None,
    threads: int = 1,
    folder: str | None = None,
) -> dict[str, Any]:
    """Minimise the pairs that cross.

    Parameters
    ----------
    affinity : (L-1, E, E) int64
    num_gpus : int
    count : int
        Experts of a layer on each GPU: exactly so many if `equal`, else at most.
    equal : bool
    deadline : float, optional
        ``time.time()`` at which to return.
    work : int, optional
        Effort after which to stop, in units that don't depend on the clock.
    threads : int
        For CP-SAT; CBC runs on one.
    folder : str, optional
        Where the solver puts its files.

    Returns
    -------
    dict
        ``status`` ("optimal", "feasible" or "none"), ``crossings`` (pairs that cross) and ``gpu`` (L, E).
    """
    L, E = len(affinity) + 1, affinity.shape[1]
    G, gpus = num_gpus, range(num_gpus)
    problem = pulp.LpProblem("exflow", pulp.LpMinimize)
    x = problem.add_variable_dicts("x", (range(L), range(E), gpus), 0, 1, pulp.LpBinary)
    pairs = [tuple(int(v) for v in index) for index in np.argwhere(affinity > 0)]
    names = [f"{layer}_{i}_{j}" for layer, i, j in pairs]
    # Continuous suffices: with x integral, the least R that the rows allow is 0 or 1.
    crossing = problem.add_variable_dicts("R", names, 0, 1, pulp.LpContinuous)
    problem += pulp.lpSum(int(affinity[pair]) * crossing[name] for pair, name in zip(pairs, names, strict=True))
    for layer in range(L):
        for i in range(E):
            problem += pulp.lpSum(x[layer][i][g] for g in gpus) == 1
        for g in gpus:
            held = pulp.lpSum(x[layer][i][g] for i in range(E))
            problem += held == count if equal else held <= count
    for (layer, i, j), name in zip(pairs, names, strict=True):
        for g in gpus:
            problem += crossing[name] - x[layer][i][g] + x[layer + 1][j][g] >= 0
            problem += crossing[name] + x[layer][i][g] - x[layer + 1][j][g] >= 0
    # Equal GPUs may be renamed freely: number them by their first expert of layer 0.
    for i in range(min(E, G)):
        for g in range(i + 1, G):
            problem += x[0][i][g] == 0
    left = None if deadline is None else deadline - time.time()
    if left is not None and left <= 0.05:
        return {"status": "none"}
    status = _outcome(problem, problem.solve(_solver(left, work, threads, folder)))
    # CBC stopped in the root's relaxation leaves fractions that PuLP takes for a solution.
    values = [x[layer][i][g].varValue or 0.0 for layer in range(L) for i in range(E) for g in gpus]
    if status == "none" or any(min(abs(value), abs(1 - value)) > INTEGRALITY for value in values):
        return {"status": "none"}
    gpu = [[max(gpus, key=lambda g: x[layer][i][g].varValue or 0.0) for i in range(E)] for layer in range(L)]
    crossings = sum(int(affinity[layer, i, j]) for layer, i, j in pairs if gpu[layer][i] != gpu[layer + 1][j])
    return {"status": status, "crossings": crossings, "gpu": gpu}


def _solver(left: float | None, work: int | None, threads: int, folder: str | None) -> Any:
    """Return the solver that this PuLP comes with: CBC up to PuLP 3, CP-SAT from PuLP 4 on."""
    if hasattr(pulp, "PULP_CBC_CMD"):
        nodes = None if work is None else max(1, work // 1000)
        # A node limit stops neither the root's relaxation nor its cuts and heuristics, which may take minutes.
        iterations = 0 if work is None else int(np.clip(work // 1000, 1000, 2000))
        options = [] if work is None else ["cuts off", "heuristicsOnOff off", f"maxIterations {iterations}"]
        solver = pulp.getSolver("PULP_CBC_CMD", msg=False, timeLimit=left, maxNodes=nodes, options=options)
        solver.tmpDir = folder or solver.tmpDir
        return solver
    extra = {} if work is None else {"max_deterministic_time": max(1e-3, work * 1e-5)}
    return pulp.getSolver("CPSAT", msg=False, timeLimit=left, threads=threads, random_seed=0, **extra)


def _outcome(problem: Any, returned: Any) -> str:
    """Read what a solve proved: "optimal", "feasible" (a solution, nothing proven) or "none".

    PuLP 3 reports "Optimal" for the best solution at a time limit; only its solution status tells the two apart. PuLP 4
    returns an object that keeps why the solver stopped apart from whether there is a solution.
    """
    if hasattr(returned, "has_solution"):
        found, proven = bool(returned.has_solution), returned.status == pulp.constants.LpSolveStatus.Optimal
    else:
        found = problem.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
        proven = problem.sol_status == pulp.LpSolutionOptimal
    return "none" if not found else "optimal" if proven else "feasible"


def main(folder: Path) -> None:
    """Solve the model in `folder`."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    settings = json.loads((folder / "model.json").read_text())
    with np.load(folder / "model.npz") as arrays:
        outcome = solve_model(arrays["affinity"], folder=str(folder), **settings)
    partial = folder / "outcome.part"
    partial.write_text(json.dumps(outcome))
    partial.rename(folder / "outcome.json")


def _die_with_parent() -> None:
    """Kill this process and the solver that it started once the parent's end of the pipe closes."""
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
