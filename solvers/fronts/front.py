"""Many plans in one call: what traffic costs in balance, in replicas, or in bytes moved.

References
----------
Y. P. Aneja and K. P. K. Nair, Management Science 25 (1979), "Bicriteria transportation problem": the next weight is the
slope between two neighbours. M. Ehrgott, Multicriteria Optimization (2005), chapter 4: a cap finds the plans that no
weight finds.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from placement import Plan, Problem
from solvers.fronts.few import few_moves
from solvers.fronts.mixes import add_balanced_mixes, add_mixes, with_few_free
from solvers.fronts.pareto import nondominated
from solvers.fronts.points import Against, Front
from solvers.fronts.search import FrontSearch
from solvers.fronts.sizes import check_sizes, sizes_of
from solvers.fronts.survival import by_survival, check_survival
from solvers.methods.eplb.solver import Eplb
from solvers.methods.registry import Solver, solver_from
from solvers.plans import NoPlanError
from solvers.searching.events import Observer
from solvers.searching.limits import Limits
from solvers.solving.solving import DEFAULT_LIMITS
from traces import Violations
from traces.support.kinds import checked

__all__ = ["front"]

# Of the imbalance: points are spaced by ratios above it, evenly below. Chosen by
# trial.
FLOOR = 0.01
FREE_SHARES = (0.5, 0.25, 0.1)  # of the experts of a layer; chosen by trial
MOVE_SEARCHES = 1 + len(FREE_SHARES)


@checked
def front(
    problem: Problem,
    *,
    solver: str | Solver = "auto",
    limits: Limits = DEFAULT_LIMITS,
    points: int = 9,
    seed: int = 0,
    start: Plan | None = None,
    against: Against = "imbalance",
    num_groups: int | None = None,
    observe: Observer | None = None,
    interrupt: threading.Event | None = None,
    workers: int | None = None,
    options: dict[str, Any] | None = None,
) -> Front:
    """Find the Pareto front of the traffic against another figure.

    Parameters
    ----------
    problem : Problem
        A load cap bounds the front: plans that miss it are left out, unless all do. A budget of replicas holds for
        every point; against ``replicas`` too, where slots beyond it are only more room to choose from.
    solver : str or Solver
        Searches for each point, from the best plan that is known for it.
    limits : Limits
        Time and work are those of the whole front, shared evenly, 60 s by default; `gap` and `stall_s` are those of
        each point.
    points : int
        Searches, and most points of the front; at least 3.
    seed : int
        Same seed and work limit: same front, whatever the number of cores.
    start : Plan, optional
        A plan to improve on; needed against ``bytes_moved``, where it is what is running now.
    against : {"imbalance", "replicas", "bytes_moved", "survival"}
        ``imbalance``: by load caps, and weights of the imbalance where the objective has one. ``replicas``: by slots
        per GPU, from ``ceil(E / G)`` to the problem's own (4 more where that is the same). ``bytes_moved``: by mixing
        the layers of the start plan and of better plans. ``survival``: by the experts that one failure may take, from
        what the constraints let it take to what a plan loses that need not survive.
    num_groups : int, optional
        Expert groups of the router: hierarchical EPLB is a further candidate then.
    observe : callable, optional
        Called with each `Event` of each search.
    interrupt : threading.Event, optional
        Set it, from any thread, to end the search; the front so far is returned. So does Ctrl-C.
    workers : int, optional
        Threads; all available cores by default.
    options : dict, optional
        Parameters, if `solver` is a name.

    Returns
    -------
    Front

    Raises
    ------
    InputError
        If the request breaks a rule, or the solver can't take the problem.
    NoPlanError
        If no plan was found.
    """
    limits = limits.of_front()
    _check(problem, points, start, against, num_groups)
    if isinstance(solver, str):
        solver, options = solver_from(solver, options), None
    if problem.redundant_experts is not None:  # a front may try other numbers of slots
        problem = replace(problem, redundant_experts=None)
    if problem.objective.traffic_weight == 0:
        problem = replace(problem, objective=replace(problem.objective, traffic_weight=1.0))
    sizes = sizes_of(problem, points) if against == "replicas" else []
    check_sizes(solver, problem, sizes)
    searches = {"replicas": len(sizes), "bytes_moved": MOVE_SEARCHES}.get(against, points)
    run = FrontSearch(
        problem,
        solver,
        limits,
        searches,
        seed=seed,
        workers=workers,
        observe=observe,
        interrupt=interrupt,
        options=options,
    )
    try:
        if against == "replicas":
            _by_replicas(run, sizes, start, num_groups)
        elif against == "survival":
            by_survival(run, points)
        else:
            if start is not None:
                run.start_from(start, problem)
            if against == "imbalance":
                _baselines(run, problem, num_groups)
                _by_imbalance(run)
                add_balanced_mixes(run, points)
            else:
                _by_moves(run, points)
    except KeyboardInterrupt:
        run.stopped = True
    if not run.pool:
        from placement import Termination

        detail = "No plan was found before the search was stopped."
        raise NoPlanError(Termination(reason="no_plan", limit="cancelled", detail=detail, deterministic=False))
    return run.front(against, points, start)


def _check(problem: Problem, points: int, start: Plan | None, against: Against, num_groups: int | None) -> None:
    found = Violations()
    if against not in get_args(Against):
        detail = f"{against!r} is not one of {list(get_args(Against))}."
        found.add("unknown_choice", "/against", detail, "Choose one of them.")
    if points < 3:
        found.add("points_range", "/points", f"{points} points.", "Give at least 3: two ends and one between.")
    if against == "bytes_moved" and start is None:
        detail = "Bytes are moved from a plan that is running, and none is given."
        found.add("no_start", "/start", detail, "Give the plan that is running as the start.")
    check_survival(problem, start, against, found)
    if num_groups is not None:
        reason = Eplb(policy="hierarchical", num_groups=num_groups).supports(problem)
        if reason:
            found.add("unsupported", "/num_groups", f"Hierarchical EPLB: {reason}", "Leave num_groups out.")
    found.raise_if_any()


def _baselines(run: FrontSearch, problem: Problem, num_groups: int | None) -> None:
    if Eplb().supports(problem) is None:
        run.baseline(Eplb(policy="global"), problem)
    if num_groups is not None and Eplb(policy="hierarchical", num_groups=num_groups).supports(problem) is None:
        run.baseline(Eplb(policy="hierarchical", num_groups=num_groups), problem)


def _by_imbalance(run: FrontSearch) -> None:
    """Search both ends, then again and again inside the widest gap between neighbours."""
    problem = run.problem
    weighted = problem.objective.imbalance_weight > 0

    def capped(cap: float, *, needed: bool = False) -> None:
        lower = tuple(item for item in problem.constraints.layer_load_caps if item.load_cap < cap)
        made = replace(problem, constraints=replace(problem.constraints, load_cap=cap, layer_load_caps=lower))
        run.search(problem, made, {"against": "imbalance", "load_cap": cap}, needed=needed)

    def weighed(weight: float, *, needed: bool = False) -> None:
        note = {"against": "imbalance", "imbalance_weight": weight, "load_cap": problem.constraints.load_cap}
        run.search(problem, _with_weight(problem, weight), note, needed=needed)

    weighed(0.0, needed=True)
    capped(1.0, needed=True)
    if weighted:
        weighed(problem.objective.imbalance_weight)
    tried: list[float] = []
    while not run.done:
        gaps = _gaps(run)
        if not gaps:
            return
        # The widest gap first; one that was searched before, and is still there, counts for less and less.
        counts = [sum(gap[1] < at < gap[2] for at in tried) for gap in gaps]
        number = max(range(len(gaps)), key=lambda item: gaps[item][0] / 2 ** counts[item])
        _, least, most, slope = gaps[number]
        middle = 1 + math.sqrt(max(least - 1, FLOOR / 4) * max(most - 1, FLOOR))
        middle = middle if least < middle < most else (least + most) / 2
        tried.append(middle)
        if weighted and counts[number] % 2 == 0:
            weighed(slope * problem.objective.traffic_weight)
        else:
            capped(middle)


def _gaps(run: FrontSearch) -> list[tuple[float, float, float, float]]:
    """Return width, both imbalances and slope of the gaps between neighbours of the front."""
    items = run.pool
    kept = nondominated([item.imbalance for item in items], [item.traffic for item in items])
    places = np.array([(items[i].imbalance, items[i].traffic) for i in kept])
    if len(places) < 2:
        return []
    # Half a per cent more imbalance matters to a balanced plan, and not to one that is at twice the mean.
    along = np.log(FLOOR + np.maximum(places[:, 0] - 1, 0))
    along /= max(along[-1] - along[0], 1e-12)
    down = places[:, 1] / max(places[0, 1] - places[-1, 1], 1e-12)
    return [
        (
            math.hypot(along[b] - along[a], down[b] - down[a]),
            float(places[a, 0]),
            float(places[b, 0]),
            float((places[a, 1] - places[b, 1]) / (places[b, 0] - places[a, 0])),
        )
        for a, b in pairwise(range(len(places)))
    ]


def _with_weight(problem: Problem, weight: float) -> Problem:
    """Return the problem with another weight of the imbalance; the spread of the loads keeps its ratio to it."""
    objective = problem.objective
    spread = objective.load_spread_weight
    if objective.imbalance_weight > 0:
        spread *= weight / objective.imbalance_weight
    return replace(problem, objective=replace(objective, imbalance_weight=weight, load_spread_weight=spread))


def _by_moves(run: FrontSearch, points: int) -> None:
    """Balance the start with few moves; search with every expert free to move, then with ever fewer; mix all of it."""
    problem = run.problem
    for table in few_moves(
        problem, run.pool[0].table, [], points
    ):  # first: it takes a moment, and a search begins there
        run.add(table, problem, run.pool[0], {"against": "bytes_moved"})
    run.search(problem, problem, {"against": "bytes_moved"})
    for share in FREE_SHARES:
        if not run.done and (pinned := with_few_free(run, share)) is not None:
            run.search(problem, pinned, {"against": "bytes_moved", "free_experts": share})
    add_mixes(run, points)


def _by_replicas(run: FrontSearch, sizes: list[int], start: Plan | None, num_groups: int | None) -> None:
    """Search with ever more slots; a plan with fewer, its new slots empty, is a candidate as well."""
    if start is not None:  # of other sizes it helps nobody
        run.start_from(start, replace(run.problem, slots_per_gpu=start.slots_per_gpu))
    for size in sizes:
        problem = replace(run.problem, slots_per_gpu=size)
        for item in [item for item in run.pool if item.problem.slots_per_gpu < size]:
            layers = len(item.table)
            grown = np.full((layers, problem.num_gpus, size), -1, np.int32)
            grown[:, :, : item.problem.slots_per_gpu] = item.table.reshape(layers, problem.num_gpus, -1)
            run.add(grown.reshape(layers, -1), problem, item, {"against": "replicas", "slots_per_gpu": size})
        _baselines(run, problem, num_groups)
        # A search that starts with empty slots does not fill them.
        run.search(problem, problem, {"against": "replicas", "slots_per_gpu": size}, fresh=True)
