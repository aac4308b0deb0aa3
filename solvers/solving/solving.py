"""The front door of the solvers: limits, seed, start and observers around one method."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem, Termination, lower_bound
from placement.cost.feasibility import broken_constraints, load_cap_misses
from placement.plan.termination import Reason
from placement.topology.file import topology_to_dict
from solvers.methods.registry import Solver, parameters_of, solver_from
from solvers.plans import NoPlanError
from solvers.searching.events import Event, Observer, ObserverError
from solvers.searching.interrupting import ctrl_c_cancels
from solvers.searching.limits import Limits
from solvers.searching.search import Search
from solvers.searching.solution import Solution, Step
from solvers.solving.warm_up import warm_up
from solvers.survival.effort import OutOfEffortError
from traces import InputError, Violations
from traces.support.kinds import checked
from traces.support.parallel import available_cores

__all__ = ["check_start", "solve"]

log = logging.getLogger(__name__)
ROUNDING = 1e-6  # relative; a bound is the sum of up to millions of products, each rounded to 1e-16
DEFAULT_LIMITS = Limits()


@checked
def solve(
    problem: Problem,
    solver: str | Solver = "auto",
    *,
    limits: Limits = DEFAULT_LIMITS,
    start: Plan | None = None,
    seed: int = 0,
    observe: Observer | None = None,
    workers: int | None = None,
    options: dict[str, Any] | None = None,
    interrupt: threading.Event | None = None,
    executor: Callable[[], Executor] | None = None,
) -> Solution:
    """Find a plan.

    Parameters
    ----------
    problem : Problem
    solver : str or Solver
        Name (see `solvers.names`) or parameters.
    limits : Limits
        Ten seconds by default. Compiling loops, which the first run on a machine has to do, comes before the clock.
    start : Plan, optional
        Plan to start from; the result is never worse.
    seed : int
        Same seed and work limit: same plan, whatever the number of cores.
    observe : callable, optional
        Called with each `Event`. An exception in it ends the search and is passed on.
    workers : int, optional
        Threads; all available cores by default.
    options : dict, optional
        Parameters, if `solver` is a name.
    interrupt : threading.Event, optional
        Set it, from any thread, to end the search; the incumbent is returned.
    executor : callable, optional
        Makes an executor of ``concurrent.futures``. Under a work limit and dispatch by tokens, annealing deals out the
        layers to its workers, and the plan is that of one machine; else it has no effect.

    Returns
    -------
    Solution
        Ctrl-C (KeyboardInterrupt) ends the search and returns the incumbent, if there is one.

    Raises
    ------
    InputError
        If the solver can't take the problem, or `start` does not fit it.
    NoPlanError
        If no plan was found.
    """
    method = solver_from(solver, options) if isinstance(solver, str) else solver
    if reason := method.supports(problem):
        raise InputError.of(
            "unsupported", "/solver", f"{method.name}: {reason}", "Choose another solver, such as 'auto'."
        )
    if seed < 0:
        raise InputError.of("seed_range", "/seed", f"Seed {seed} is negative.", "Give a seed of at least 0.")
    history: list[Step] = []

    def record(event: Event) -> None:
        history.append(Step(elapsed_s=event.elapsed_s, solver=event.solver, score=event.score, bound=event.bound))
        if observe is not None:
            observe(event)

    table = None if start is None else check_start(problem, start)
    if limits.time_s is not None:
        warm_up(problem, method, limits.time_s)
    threads = available_cores() if workers is None else max(1, workers)
    told: dict[str, Any] = {"observe": record, "start": table, "interrupt": interrupt, "executor": executor}
    search = Search(problem, limits, seed=seed, workers=threads, **told)
    search.solver = method.name
    failure: Exception | None = None
    search.bound(lower_bound(problem))
    try:
        with ctrl_c_cancels(search):
            if table is not None:
                search.part(1.0, 0, "start").offer(table)
            method.run(problem, search.part(1.0, 1, method.name))
    except KeyboardInterrupt:
        search.cancel()
    except ObserverError as error:
        raise error.__cause__ or error from None
    except InputError:
        raise
    except OutOfEffortError as error:
        search.note(f"ended early: {error}")
    except Exception as error:
        # A solver that fails after an incumbent still returns it; its fault is logged and told.
        if search.best is None:
            raise
        log.exception("solver %s failed; the incumbent is kept", method.name)
        failure = error
    return _finish(problem, method, search, limits, seed, history, failure)


def check_start(problem: Problem, start: Plan) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return the map (L, S) of a start plan.

    Raises
    ------
    InputError
        If it is not of the problem's sizes or breaks its constraints; nodes may differ.
    """
    found = Violations()
    if start.layer_ids.tolist() != problem.profile.layer_ids.tolist():
        found.add("start_layers", "/start/layer_ids", "The start plan has other layers.", "Start from a fitting plan.")
    for name in ("num_experts", "num_gpus", "slots_per_gpu"):
        own, wanted = getattr(start, name), getattr(problem, name)
        if own != wanted:
            detail = f"The start plan's {name} is {own}, that of the problem {wanted}."
            found.add("start_size", f"/start/{name}", detail, "Start from a fitting plan.")
    found.raise_if_any()
    for fault in broken_constraints(problem, start.physical_to_logical_map).found:
        remedy = "Start from a plan that keeps the constraints, or leave the start out."
        found.add("start_invalid", "/start", fault.detail, remedy)
    found.raise_if_any()
    return start.physical_to_logical_map


def _finish(
    problem: Problem,
    method: Solver,
    search: Search,
    limits: Limits,
    seed: int,
    history: list[Step],
    failure: Exception | None,
) -> Solution:
    outcome = search.outcome()
    limit, bound = outcome.limit, outcome.bound
    if outcome.table is None or outcome.score is None:
        detail = " ".join([f"{method.name} found no plan within its limits.", *outcome.notes])
        raise NoPlanError(Termination(reason="no_plan", limit=limit, detail=detail, deterministic=limits.deterministic))
    total = outcome.score.total
    misses = load_cap_misses(problem, outcome.table)
    if bound is not None and bound > total:
        if bound - total > ROUNDING * max(1.0, abs(total)):
            raise RuntimeError(f"the bound {bound} is above the score {total} of a plan: a fault of the solver")
        bound = total
    reason: Reason = "infeasible" if misses else "optimal" if outcome.proven else "feasible"
    if outcome.proven:
        bound = total
    detail = misses[0] if misses else ""
    if failure is not None:
        detail = f"{method.name} failed after this plan: {failure}"
    # A search that a clock could have cut short, but did not, gives the same plan again.
    deterministic = limits.deterministic or (limit is None and not outcome.clocked)
    if not deterministic and not detail and not outcome.proven:
        detail = "A time limit can't promise the same plan again; a work limit does."
    termination = Termination(
        reason=reason, limit=limit, detail=detail, deterministic=deterministic and limit != "cancelled"
    )
    plan = problem.plan(
        outcome.table,
        score=total,
        bound=bound,
        termination=termination,
        warnings=(*misses, *_left_empty(problem, outcome.table)),
        provenance={
            "trace_digest": problem.profile.digest,
            "trace": [asdict(source) for source in problem.profile.sources],
            "solver": method.name,
            "found_by": outcome.solver,
            "parameters": parameters_of(method),
            "limits": asdict(limits),
            "seed": seed,
            "version": _version(),
            "objective": asdict(problem.objective),
            "constraints": asdict(problem.constraints),
            "topology": topology_to_dict(problem.topology),
            **({} if problem.engine is None else {"engine": problem.engine}),
            **({} if problem.expert_bytes is None else {"expert_bytes": problem.expert_bytes}),
            **({"notes": list(outcome.notes)} if outcome.notes else {}),
        },
    )
    return Solution(
        plan=plan,
        score=outcome.score,
        termination=termination,
        elapsed_s=outcome.elapsed_s,
        history=tuple(history),
    )


def _left_empty(problem: Problem, table: npt.NDArray[np.integer[Any]]) -> tuple[str, ...]:
    """Return a warning where slots that should be full are empty, as no expert may be there."""
    usable = problem.num_layers * int(problem.capacity.sum())
    empty = usable - int((table >= 0).sum())
    if not problem.full_slots or not empty:
        return ()
    return (f"{empty} of {usable} slots stay empty though all should be full: exclusions and groups let no expert in.",)


def _version() -> str:
    try:
        return version("moe-placement")
    except PackageNotFoundError:
        return "unknown"
