"""The best of many seeds: the same search again and again, each on its own, wherever an executor runs it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from placement import Problem, Termination
from solvers.fronts.points import Front
from solvers.plans import NoPlanError
from solvers.requests.request import Request
from solvers.searching.events import Event, Observer
from solvers.searching.solution import Solution
from solvers.solving.solving import solve
from traces import InputError
from traces.support.parallel import map_executor

__all__ = ["MakeExecutor", "best_of_seeds", "front_of_seeds", "search_seeds"]

MakeExecutor = Callable[[], Executor]
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class _Search:
    """A search but for its seed; pickles."""

    search: Callable[..., Any]

    def run(self, seed: int) -> Any:
        """Return what is found with a seed, or why there is nothing: the error does not travel between processes."""
        try:
            return self.search(seed=seed)
        except NoPlanError as error:
            return error.termination


def _results(search: _Search, seeds: Sequence[int], executor: MakeExecutor | None) -> Iterator[Any]:
    """Yield what each seed finds: one after the other here, or wherever the executor runs it."""
    if executor is None:
        return map(search.run, seeds)
    return iter(map_executor(executor, search.run, seeds, _lost))


def best_of_seeds(
    problem: Problem,
    request: Request,
    *,
    executor: MakeExecutor | None = None,
    workers: int | None = None,
    progress: Callable[[int, float | None], None] | None = None,
    observe: Observer | None = None,
    interrupt: threading.Event | None = None,
) -> Solution:
    """Search once per seed and return the best plan: of the lowest score, and of equal ones, of the smallest seed.

    With a work limit the result depends on neither the executor nor the order in which searches end. Its bound is the
    highest that any search has proven. A single search by tokens deals out its layers (see `solvers.solve`).

    Parameters
    ----------
    problem : Problem
    request : Request
        Solver, options, start, first seed and number of seeds; its limits are those of each search.
    executor : callable, optional
        Makes an executor of ``concurrent.futures``; made anew if a worker dies. By default the seeds are searched here,
        one after the other.
    workers : int, optional
        Threads of each search; with an executor, one by default.
    progress : callable, optional
        Called with the number of searches that have ended, and the best score.
    observe : callable, optional
        Called with each `Event` that is better than all before, of any seed; with an executor, only of a single search
        that deals out its layers.
    interrupt : threading.Event, optional
        Set it, from any thread, to end the searches; likewise.

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
    asked = partial(
        solve, problem, request.solver, limits=request.limits, start=request.start, options=dict(request.options)
    )
    if executor is not None and request.seeds == 1 and _is_dealt(problem, request):
        return asked(seed=request.seed, workers=workers, observe=observe, interrupt=interrupt, executor=executor)
    search = _Search(
        search=partial(
            asked,
            workers=workers if executor is None else workers or 1,
            observe=None if executor is not None else _improvements(observe),
            interrupt=None if executor is not None else interrupt,
        )
    )
    seeds = range(request.seed, request.seed + request.seeds)
    best: Solution | None = None
    bounds: list[float] = []
    failed: list[Termination] = []
    done, stopped = 0, False
    try:
        for found in _results(search, seeds, executor):
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
            if interrupt is not None and interrupt.is_set():
                stopped = done < len(seeds)
                break
    except KeyboardInterrupt:
        if best is None:
            raise
        stopped = True
    if best is None:
        raise NoPlanError(failed[0])
    if bounds:
        best = replace(best, plan=best.plan.replacing(bound=max(bounds)))
    return _stopped(best, f"Stopped after {done} of {len(seeds)} seeds.") if stopped else best


def search_seeds(
    problem: Problem,
    request: Request,
    *,
    executor: MakeExecutor | None,
    workers: int | None,
    interrupt: threading.Event | None,
    progress: Callable[[int, float | None], None] | None = None,
    observe: Observer | None = None,
) -> Solution:
    """Search once, or once per seed where there are several or an executor is given; see `best_of_seeds`."""
    how: dict[str, Any] = {"workers": workers, "observe": observe, "interrupt": interrupt}
    if request.seeds > 1 or executor is not None:
        return best_of_seeds(problem, request, executor=executor, progress=progress, **how)
    asked: dict[str, Any] = {"limits": request.limits, "start": request.start, "seed": request.seed}
    return solve(problem, request.solver, options=dict(request.options), **asked, **how)


def _is_dealt(problem: Problem, request: Request) -> bool:
    """Whether a single search deals out its layers."""
    if request.solver not in ("annealing", "auto") or request.limits.work is None or request.limits.time_s is not None:
        return False
    from solvers.methods.annealing.solver import searches_by_tokens

    return searches_by_tokens(problem)


def _improvements(observe: Observer | None) -> Observer | None:
    """Return an observer that passes on only what is better than everything before, whatever the seed."""
    if observe is None:
        return None
    best = math.inf

    def pass_on(event: Event) -> None:
        nonlocal best
        if event.table is not None and event.score is not None and event.score < best:
            best = event.score
            observe(event)

    return pass_on


def front_of_seeds(
    search: Callable[..., Front],
    seeds: range,
    *,
    points: int,
    executor: MakeExecutor | None = None,
    progress: Callable[[int], None] | None = None,
) -> Front:
    """Search for a front once per seed and return the front of all their points.

    With a work limit the result depends on neither the executor nor the order in which searches end.

    Parameters
    ----------
    search : callable
        Takes ``seed`` and returns a front; pickles.
    seeds : range
    points : int
        Most points of the front.
    executor : callable, optional
        See `best_of_seeds`.
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
    whole = _Search(search=search)
    begin = time.monotonic()
    fronts: list[Front] = []
    failed: list[Termination] = []
    stopped = False
    try:
        for found in _results(whole, seeds, executor):
            if isinstance(found, Termination):
                failed.append(found)
            else:
                fronts.append(found)
            if progress is not None:
                progress(len(fronts) + len(failed))
            if executor is None and fronts and fronts[-1].stopped:  # whoever ended it wants no other
                break
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
