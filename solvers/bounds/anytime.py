"""Raising the bound of a search for as long as it may take, on all workers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from placement import Problem
from placement.bounds import load_floor
from solvers.bounds.assignments import least_assignment_traffic
from solvers.bounds.chain import ChainBound
from solvers.bounds.dispatch import DispatchBound
from solvers.bounds.relaxation import Relaxation
from solvers.bounds.threads import single_threaded
from solvers.search import Search
from solvers.threads import run_together

__all__ = ["raise_bound"]

Item = TypeVar("Item", contravariant=True)
CHUNK_ENTRIES = 1_300_000  # steps between two safe bounds, times entries of the matrix
SETTLED = 80  # steps before a small gain ends a relaxation: triangles come in after 40
STALL = 1e-4  # relative gain of 20 steps below which a relaxation is done
MOST_STEPS = (150, 300, 600)  # per pass; each pass has longer windows
SHARES = (0.9, 0.6)  # of what is left, per pass; what a pass does not need is for the next, and the last has all
ENTRIES_PER_STEP = 4000  # what a step costs besides those of the matrix; an entry takes about as long as a trial
SETUP_STEPS = 2  # what a relaxation's first bounds cost, in steps


class Parts(Protocol[Item]):
    """A bound that is put together from relaxations."""

    def size(self, item: Item) -> int:
        """Return the rows of a part's matrix."""

    def relaxation(self, item: Item) -> Relaxation | None:
        """Return the relaxation of a part; None where it has a bound without."""

    def found(self, item: Item, kept: float) -> None:
        """Take the bound of a part."""

    def total(self) -> float:
        """Return the bound of the traffic term, from what was found so far."""


def raise_bound(problem: Problem, search: Search) -> None:
    """Report better and better lower bounds to `search` until nothing is gained or it is done.

    Every reported value is safe, so it may be stopped at any moment. Windows of layers are relaxed one after the other,
    longer ones in later passes; each gets an equal part of what is left of the pass, and leaves what it doesn't need to
    the others.

    Parameters
    ----------
    problem : Problem
        Any; where no relaxation is known, the instant bound stands.
    search : Search
        Its time is dealt out to the relaxations; under a work limit, its work, and the same work gives the same bound
        on any number of workers.
    """
    if problem.num_gpus == 1 or not problem.objective.traffic_weight or search.done:
        return
    objective = problem.objective
    with single_threaded():
        if objective.execution == "context_coherent":
            affinity = problem.profile.affinity
            if affinity is not None and affinity.any():
                chain = ChainBound(problem)
                _run(problem, search, chain, chain.passes())
        elif objective.dedup == "none":
            search.bound(load_floor(problem) + objective.traffic_weight * least_assignment_traffic(problem, search))
        else:
            dispatch = DispatchBound(problem)
            _run(problem, search, dispatch, dispatch.passes())


def _run(problem: Problem, search: Search, bound: Parts[Item], passes: Sequence[Sequence[Item]]) -> None:
    """Go through the passes, each with its share of the time and of the work that are left."""
    spent = 0
    for number, items in enumerate(passes):
        last = number == len(passes) - 1
        share = 0.97 if last else SHARES[min(number, len(SHARES) - 1)]
        left = None if search.work is None else share * max(0, search.work - spent) / search.work
        most_steps = MOST_STEPS[min(number, len(MOST_STEPS) - 1)]
        spent += _pass(problem, search.part(share, number, work_share=left), bound, items, most_steps)
        if search.done or search.proven:
            return


def _pass(problem: Problem, search: Search, bound: Parts[Item], items: Sequence[Item], most_steps: int) -> int:
    """Improve each relaxation for its share of the time; return the work that it took."""
    floor, lock, spent = load_floor(problem), threading.Lock(), 0
    lanes = max(1, min(search.workers, len(items)))
    waiting = list(enumerate(items))[::-1]

    def run() -> None:
        nonlocal spent
        while not (search.done or search.proven):
            with lock:
                if not waiting:
                    return
                left = len(waiting)
                number, item = waiting.pop()
            part = search.part(min(1.0, lanes / left), number, work_share=1 / len(items))
            work = _improve(bound, item, part, most_steps)
            with lock:
                spent += work
            search.bound(floor + bound.total())

    run_together(search, [run] * lanes)
    search.bound(floor + bound.total())
    return spent


def _improve(bound: Parts[Item], item: Item, part: Search, most_steps: int) -> int:
    """Improve one relaxation, and return the work that it took."""
    entries = bound.size(item) ** 2
    cost = entries + ENTRIES_PER_STEP
    chunk = int(np.clip(CHUNK_ENTRIES // entries, 8, 20))
    if part.progress(SETUP_STEPS * cost) >= 1.0:
        return 0
    relaxation = bound.relaxation(item)
    if relaxation is None:
        return SETUP_STEPS * cost
    bound.found(item, relaxation.value)
    steps, before = 0, relaxation.value
    while steps < most_steps and part.progress((SETUP_STEPS + steps + chunk) * cost) < 1.0:
        try:
            after = relaxation.iterate(chunk)
        except np.linalg.LinAlgError:  # what was found so far is safe
            break
        steps += chunk
        bound.found(item, after)
        if steps >= SETTLED and before - after <= STALL * chunk / 20 * abs(before):
            break
        before = after
    return (SETUP_STEPS + steps) * cost
