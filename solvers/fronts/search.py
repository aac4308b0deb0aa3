"""The searches behind a front: one budget, one pool of all plans they find."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem, lower_bound, score
from placement.cost.feasibility import broken_constraints
from solvers.fronts.candidates import Candidate
from solvers.fronts.pareto import nondominated, thinned
from solvers.fronts.points import Against, Front
from solvers.methods.annealing.solver import Annealing
from solvers.methods.registry import Solver
from solvers.plans import NoPlanError
from solvers.searching.events import Event, Observer
from solvers.searching.fill import fill_slots
from solvers.searching.limits import Limits
from solvers.searching.solution import Solution
from solvers.solving.solving import check_start, solve

__all__ = ["FrontSearch"]

Table = npt.NDArray[np.int32]
# Of the time; the rest is for mixes of what was found; chosen by trial.
SEARCH_SHARE = 0.85
# A search between neighbours of the front: about the last third of a usual one; chosen by trial.
GENTLE_HOT = 0.08


class FrontSearch:
    """Runs one search after another within one budget, and keeps every plan that any of them finds.

    Parameters
    ----------
    problem : Problem
    solver : str or Solver
    limits : Limits
        Of all searches together; `gap` and `stall_s` of each.
    searches : int
        How many there will be, to share time and work evenly.
    seed, workers, observe, interrupt, options
        See `solve`.
    """

    def __init__(
        self,
        problem: Problem,
        solver: str | Solver,
        limits: Limits,
        searches: int,
        *,
        seed: int = 0,
        workers: int | None = None,
        observe: Observer | None = None,
        interrupt: threading.Event | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.problem = problem
        self.limits = limits
        self.left = searches
        self.pool: list[Candidate] = []
        self.stopped = False
        self._solver, self._options, self._seed = solver, options, seed
        self._workers, self._observe = workers, observe
        self._interrupt = threading.Event() if interrupt is None else interrupt
        self._begin = time.monotonic()
        self._work = None if limits.work is None else max(1, limits.work // searches)
        self._known: set[bytes] = set()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begin

    @property
    def done(self) -> bool:
        """Whether the budget is used up or the search was interrupted."""
        self.stopped |= self._interrupt.is_set()
        over = self.limits.time_s is not None and self.elapsed_s >= SEARCH_SHARE * self.limits.time_s
        return self.stopped or self.left <= 0 or (over and bool(self.pool))

    @property
    def out_of_time(self) -> bool:
        """Whether nothing more may be scored."""
        self.stopped |= self._interrupt.is_set()
        return self.stopped or (self.limits.time_s is not None and self.elapsed_s >= self.limits.time_s)

    def baseline(self, solver: Solver, problem: Problem) -> None:
        """Add the plan of a method that needs no time to speak of."""
        self._add(solve(problem, solver, limits=Limits(time_s=None), workers=1, seed=self._seed), problem, {})

    def search(
        self, own: Problem, made_with: Problem, note: dict[str, Any], *, needed: bool = False, fresh: bool = False
    ) -> None:
        """Spend one share of the budget.

        Parameters
        ----------
        own : Problem
            What plans are scored under: the front's problem, with the slots of these plans.
        made_with : Problem
            What is searched: the same with other weights or another cap.
        note : dict
            Says so in the provenance.
        needed : bool
            Search for a moment even if the time is up: an end of the front.
        fresh : bool
            Let the solver choose where to start, not the pool's best plan for `made_with`.
        """
        if self.done and not (needed and not self.stopped):
            return
        time_s = self.limits.time_s
        if time_s is not None:
            time_s = max((SEARCH_SHARE * time_s - self.elapsed_s) / max(self.left, 1), 1e-3)
        self.left -= 1
        begin = None if fresh else self.best_for(made_with)
        seen: list[tuple[Table, str]] = []

        def observe(event: Event) -> None:
            # Which plans come by on the way may depend on the threads; only the last one is sure to be the same again.
            if event.kind == "incumbent" and event.table is not None and not self.limits.deterministic:
                seen.append((event.table, event.solver))
            if self._observe is not None:
                self._observe(event)

        try:
            solution = solve(
                made_with,
                self._solver_from(begin, made_with, needed=needed),
                limits=replace(self.limits, time_s=time_s, work=self._work),
                start=begin,
                seed=self._seed,
                observe=observe,
                workers=self._workers,
                options=self._options,
                interrupt=self._interrupt,
            )
        except NoPlanError:
            if not self.pool and self.left <= 0:
                raise
            return
        self.stopped |= solution.termination.limit == "cancelled"
        self._add(solution, own, note)
        for table, found_by in seen[-8:]:  # earlier ones are better in nothing, as a rule, and each takes time to score
            self._add(solution, own, note, table, found_by)

    def _solver_from(self, begin: Plan | None, problem: Problem, *, needed: bool) -> str | Solver:
        """Return a gentler search where `auto` would start hot from a plan that is good already, and spoil it."""
        gentle = Annealing(hot=GENTLE_HOT)
        method = self._solver if isinstance(self._solver, str) else self._solver.name
        hot = problem.objective.execution == "dispatch" and gentle.supports(problem) is None
        return gentle if method == "auto" and hot and begin is not None and not needed else self._solver

    def add(self, table: Table, problem: Problem, source: Candidate, note: dict[str, Any]) -> None:
        """Add a map that was derived from a candidate's, if it keeps the constraints.

        Rows of several plans keep them layer by layer, but may have more replicas together than the budget allows.
        """
        if broken_constraints(problem, table).found:
            return
        self._insert(problem, table, source.provenance | {"front": note}, source.limit)

    def start_from(self, plan: Plan, problem: Problem) -> None:
        """Add the caller's plan.

        Raises
        ------
        InputError
            If it does not fit the problem.
        """
        self._insert(problem, check_start(problem, plan), dict(plan.provenance), None)

    def best_for(self, problem: Problem) -> Plan | None:
        """Return the pool's best plan for a problem with other weights, caps or pins; None if none keeps it."""
        free = replace(problem, objective=replace(problem.objective, traffic_weight=0.0))  # traffic is known already
        best: tuple[float, Candidate] | None = None
        for item in self.pool:
            if broken_constraints(problem, item.table).found:
                continue
            total = score(free, item.table).total + problem.objective.traffic_weight * item.traffic
            if best is None or total < best[0]:
                best = total, item
        return None if best is None else best[1].plan

    def front(self, against: Against, most: int, start: Plan | None) -> Front:
        """Return the front of the pool; plans that miss the problem's cap are left out where others keep it."""
        deterministic = self.limits.deterministic and not self.stopped
        points = [item.point(start, deterministic=deterministic) for item in self.pool]
        keeping = [point for point in points if not point.plan.warnings]
        points = keeping or points
        whole = Front(against=against, points=tuple(points))
        figure, cost = (axis.tolist() for axis in whole.axes)
        kept = nondominated(figure, cost)
        kept = [kept[item] for item in thinned([figure[i] for i in kept], [cost[i] for i in kept], most)]
        bounds = {
            size: lower_bound(problem) for size, problem in {i.table.shape[1]: i.problem for i in self.pool}.items()
        }
        final = tuple(
            replace(
                points[item],
                plan=points[item].plan.replacing(bound=bounds[points[item].plan.physical_to_logical_map.shape[1]]),
            )
            for item in kept
        )
        return replace(whole, points=final, elapsed_s=self.elapsed_s, stopped=self.stopped)

    def _add(
        self, solution: Solution, own: Problem, note: dict[str, Any], table: Table | None = None, found_by: str = ""
    ) -> None:
        provenance = dict(solution.plan.provenance)
        if found_by:
            provenance["found_by"] = found_by
        # As every point is judged: with the front's own objective, constraints and limits.
        provenance |= {
            "objective": asdict(own.objective),
            "constraints": asdict(own.constraints),
            "limits": asdict(self.limits),
            "front": note,
        }
        own_table = solution.plan.physical_to_logical_map if table is None else table
        self._insert(own, own_table, provenance, solution.termination.limit)

    def _insert(self, problem: Problem, table: Table, provenance: dict[str, Any], limit: Any) -> None:
        if problem.full_slots and (table < 0).any():
            table = fill_slots(problem, table)
        key = table.tobytes()
        if key in self._known:
            return
        self._known.add(key)
        frozen = np.array(table, dtype=np.int32)
        candidate = Candidate(
            problem=problem, table=frozen, score=score(problem, frozen), provenance=provenance, limit=limit
        )
        self.pool.append(candidate)
