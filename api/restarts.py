"""The best of many seeds: the same search again and again, each on its own, wherever an executor runs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from api.planning import PlanRequest, Prepared
from placement import Problem, Termination
from solvers import Front, NoPlanError, Solution, solve
from traces import InputError
from traces.support.parallel import map_executor

__all__ = ["Restarts", "best_of_seeds", "front_of_seeds"]


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """How often to search, and where.

    Attributes
    ----------
    seeds : int
        The request's seed and those that follow it.
    executor : callable
        Makes an executor of ``concurrent.futures``; made anew if a worker dies.
    """

    seeds: int
    executor: Callable[[], Executor]


@dataclass(frozen=True, kw_only=True)
class _Search:
    """A search but for its seed; pickles."""

    problem: Problem
    request: PlanRequest
    workers: int

    def run(self, seed: int) -> Solution | Termination:
        """Return the solution for a seed, or why there is none: the error does not travel between processes."""
        request = self.request
        try:
            return solve(
                self.problem,
                request.solver,
                limits=request.limits,
                start=request.start,
                seed=seed,
                workers=self.workers,
                options=dict(request.options),
            )
        except NoPlanError as error:
            return error.termination


def best_of_seeds(
    prepared: Prepared,
    request: PlanRequest,
    restarts: Restarts,
    *,
    workers: int | None = None,
    progress: Callable[[int, float | None], None] | None = None,
) -> Solution:
    """Search once per seed and return the best plan: of the lowest score, and of equal ones, of the smallest seed.

    With a work limit the result depends on neither the executor nor the order in which searches end. Its bound is the
    highest that any search has proven.

    Parameters
    ----------
    prepared : Prepared
    request : PlanRequest
        Its limits are those of each search.
    restarts : Restarts
    workers : int, optional
        Threads of each search; one by default.
    progress : callable, optional
        Called with the number of searches that have ended, and the best score.

    Returns
    -------
    Solution
        Ctrl-C (KeyboardInterrupt) returns the best of the searches that have ended, if there is one.

    Raises
    ------
    InputError
        If the solver can't take the problem, or workers die again and again.
    NoPlanError
        If no search found a plan.
    """
    search = _Search(problem=prepared.problem, request=request, workers=workers or 1)
    seeds = range(request.seed, request.seed + restarts.seeds)
    best: Solution | None = None
    bounds: list[float] = []
    failed: list[Termination] = []
    done, stopped = 0, False
    try:
        for found in map_executor(restarts.executor, search.run, seeds, _lost):
            done += 1
            if isinstance(found, Termination):
                failed.append(found)
            else:
                if best is None or _score(found) < _score(best):  # an equal score of a later seed changes nothing
                    best = found
                if found.plan.bound is not None:
                    bounds.append(found.plan.bound)
            if progress is not None:
                progress(done, None if best is None else best.plan.score)
    except KeyboardInterrupt:
        if best is None:
            raise
        stopped = True
    if best is None:
        raise NoPlanError(failed[0])
    if bounds:
        best = replace(best, plan=best.plan.replacing(bound=max(bounds)))
    return _stopped(best, f"Stopped after {done} of {len(seeds)} seeds.") if stopped else best


@dataclass(frozen=True, kw_only=True)
class _FrontSearches:
    """The searches of a front but for their seed; pickles."""

    search: Callable[..., Front]
    workers: int

    def run(self, seed: int) -> Front | Termination:
        """Return the front for a seed, or why there is none."""
        try:
            return self.search(seed=seed, workers=self.workers)
        except NoPlanError as error:
            return error.termination


def front_of_seeds(
    search: Callable[..., Front],
    seed: int,
    restarts: Restarts,
    *,
    points: int,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Front:
    """Search for a front once per seed and return the front of all their points.

    With a work limit the result depends on neither the executor nor the order in which searches end.

    Parameters
    ----------
    search : callable
        Takes ``seed`` and ``workers`` and returns a front; pickles.
    seed : int
        The first one.
    restarts : Restarts
    points : int
        Most points of the front.
    workers : int, optional
        Threads of each search; one by default.
    progress : callable, optional
        Called with the number of fronts that have ended.

    Returns
    -------
    Front
        Ctrl-C (KeyboardInterrupt) returns that of the searches that have ended, if there is one.

    Raises
    ------
    InputError
        If the solver can't take the problem, or workers die again and again.
    NoPlanError
        If no search found a plan.
    """
    whole = _FrontSearches(search=search, workers=workers or 1)
    begin = time.monotonic()
    fronts: list[Front] = []
    failed: list[Termination] = []
    stopped = False
    try:
        for found in map_executor(restarts.executor, whole.run, range(seed, seed + restarts.seeds), _lost):
            if isinstance(found, Termination):
                failed.append(found)
            else:
                fronts.append(found)
            if progress is not None:
                progress(len(fronts) + len(failed))
    except KeyboardInterrupt:
        if not fronts:
            raise
        stopped = True
    if not fronts:
        raise NoPlanError(failed[0])
    merged = Front.merged(fronts, points)
    return replace(merged, elapsed_s=time.monotonic() - begin, stopped=stopped or merged.stopped)


def _stopped(best: Solution, detail: str) -> Solution:
    termination = replace(best.termination, limit="cancelled", detail=detail, deterministic=False)
    plan = best.plan.replacing(termination=termination, warnings=(*best.plan.warnings, detail))
    return replace(best, plan=plan, termination=termination)


def _score(solution: Solution) -> float:
    assert solution.plan.score is not None
    return solution.plan.score


def _lost(seed: int) -> InputError:
    detail = f"The workers that searched with seed {seed} died, again and again, out of memory most likely."
    return InputError.of("worker_died", "/seed", detail, "Give workers more memory, or try fewer at a time.")
