"""Raising the bound of a search for as long as it may take, on all workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from placement import Problem
from placement.cost.bounds import load_floor, lower_bound
from solvers.bounds.assignments import least_assignment_traffic
from solvers.bounds.layer_windows import ChainBound
from solvers.bounds.load_spread import SpreadBound
from solvers.bounds.message_parts import DispatchBound
from solvers.bounds.threads import single_threaded
from solvers.searching.search import Search
from solvers.searching.threads import run_together

__all__ = ["raise_bound"]

Item = TypeVar("Item")
# Of the time, and of the work: a layer's spread is done after a few steps, its traffic goes on rising.
SPREAD_SHARE = 0.25
# Steps between two safe bounds, times entries of the matrix: 20 steps of 256 rows. Chosen by trial.
CHUNK_ENTRIES = 1_300_000
SETTLED = 80  # steps before a small gain ends a relaxation: triangles come in after 40
STALL = 1e-4  # relative gain of 20 steps below which a relaxation is done; chosen by trial
QUICK_STEPS = 0  # the first round: one chunk, or none
# Of what is left, per round; what a round does not need is for the next, the last has all; chosen by trial.
SHARES = (0.9, 0.9, 0.6)
# What a step costs besides those of the matrix; an entry takes about as long as a trial; from the times by size in
# docs/bounds.md.
ENTRIES_PER_STEP = 4000
# Relaxations that wait for the second round may take so much; chosen by trial: others
# start anew.
KEPT_BYTES = 256_000_000
SETUP_STEPS = 2  # what a relaxation's first bounds cost, in steps; chosen by trial


class Improvable(Protocol):
    """A relaxation."""

    iterations: int

    @property
    def value(self) -> float:
        """The best bound so far."""

    def iterate(self, count: int, stop: Callable[[], bool]) -> float:
        """Take `count` steps, or fewer if `stop` says so, and return the best bound so far."""


class Parts(Protocol[Item]):
    """A bound that is put together from relaxations."""

    @property
    def patience(self) -> int:
        """Steps over which a small gain ends a part."""

    def passes(self) -> list[tuple[list[Item], int]]:
        """Return the parts to improve one after the other, pass by pass, and the steps that each may take."""

    def size(self, item: Item) -> int:
        """Return the rows of a part's matrix."""

    def first_round(self) -> list[Item]:
        """Return the parts of the round before the passes: a few steps of those that are quick, none of the others."""

    def is_quick(self, item: Item) -> bool:
        """Whether a few steps in the first round are worth their time; else the bound before any stands there."""

    def least_chunk(self, item: Item) -> int:
        """Return the steps between two bounds, at least: more than a few where a bound takes long."""

    def kept_bytes(self, item: Item) -> int:
        """Return what a part takes while it waits for a second round."""

    def step_cost(self, item: Item) -> int:
        """Return what a step takes beside those of the matrix, in its entries."""

    def relaxation(self, item: Item) -> Improvable | None:
        """Return the relaxation of a part; None where it has a bound without."""

    def found(self, item: Item, value: float) -> None:
        """Take the bound of a part."""

    def total(self) -> float:
        """Return the bound of the terms, from what was found so far."""


def raise_bound(problem: Problem, search: Search) -> None:
    """Report better and better lower bounds to `search` until nothing is gained or it is done.

    Every reported value is safe, so it may be stopped at any moment. The spread comes first, then traffic: windows
    of layers are relaxed one after the other, longer ones in later passes; each gets an equal part of what is left of
    the pass, and leaves what it doesn't need to the others.

    Parameters
    ----------
    problem : Problem
        Any; where no relaxation is known, the instant bound stands.
    search : Search
        Its time is dealt out to the relaxations; under a work limit, its work, and the same work gives the same bound
        on any number of workers.
    """
    if problem.num_gpus == 1 or search.done:
        return
    spread, floor = SpreadBound(problem), load_floor(problem)
    with single_threaded():
        traffic = _traffic_parts(problem)
        if traffic is None:
            floor = _without_parts(problem, search)
        if spread.passes():
            share = 1.0 if traffic is None else SPREAD_SHARE
            beside = floor if traffic is None else floor + traffic.total()
            _Passes(search.part(share, 0), spread, beside).run()
            search, floor = search.part(1.0, 1, work_share=1 - share), floor + spread.total()
        if traffic is not None:
            _Passes[Any](search, traffic, floor).run()


def _traffic_parts(problem: Problem) -> ChainBound | DispatchBound | None:
    """Return the bound of traffic that relaxations raise, if there is one."""
    objective, affinity = problem.objective, problem.profile.affinity
    if not objective.traffic_weight:
        return None
    if objective.execution == "context_coherent":
        return ChainBound(problem) if affinity is not None and affinity.any() else None
    return None if objective.dedup == "none" else DispatchBound(problem)


def _without_parts(problem: Problem, search: Search) -> float:
    """Report and return a bound that no relaxation raises."""
    objective, least = problem.objective, lower_bound(problem)
    if objective.traffic_weight and objective.execution == "dispatch" and objective.dedup == "none":
        least = load_floor(problem) + objective.traffic_weight * least_assignment_traffic(problem, search)
    search.bound(least)
    return least


class _Passes(Generic[Item]):
    """Relaxations that take turns.

    The first pass goes over its items twice: a few steps for each give most of the gain, and a bound that stands soon.
    """

    def __init__(self, search: Search, bound: Parts[Item], floor: float) -> None:
        self.search, self.bound, self.floor = search, bound, floor
        self.spent = 0
        self.lock = threading.Lock()
        self.begun: dict[Item, Improvable | None] = {}

    def run(self) -> None:
        """Go through the passes, each with its share of the time and of the work that are left."""
        search, passes = self.search, self.bound.passes()
        rounds = [(self.bound.first_round(), QUICK_STEPS), *passes]
        for number, (items, steps) in enumerate(rounds):
            share = 0.97 if number == len(rounds) - 1 else SHARES[min(number, len(SHARES) - 1)]
            left = None if search.work is None else share * max(0, search.work - self.spent) / search.work
            self._round(search.part(share, number, work_share=left), items, steps)
            if search.done or search.proven:
                return

    def _round(self, search: Search, items: Sequence[Item], steps: int) -> None:
        """Improve each item for its share of the time."""
        lanes = max(1, min(search.workers, len(items)))
        waiting = list(enumerate(items))[::-1]
        # All or none: what is continued must not depend on who comes first.
        keep = steps == QUICK_STEPS and sum(self.bound.kept_bytes(item) for item in items) <= KEPT_BYTES

        def lane() -> None:
            while not (search.done or search.proven):
                with self.lock:
                    if not waiting:
                        return
                    left = len(waiting)
                    number, item = waiting.pop()
                # The few steps of the first round are taken whatever the clock says, as long as the round lasts.
                share = 1.0 if steps == QUICK_STEPS else min(1.0, lanes / left)
                part = search.part(share, number, work_share=1 / len(items))
                work = self._improve(item, part, steps, keep)
                with self.lock:
                    self.spent += work
                search.bound(self.floor + self.bound.total())

        run_together(search, [lane] * lanes)
        search.bound(self.floor + self.bound.total())

    def _improve(self, item: Item, part: Search, most_steps: int, keep: bool) -> int:
        """Improve one relaxation, and return the work that it took."""
        entries = self.bound.size(item) ** 2
        cost = entries + ENTRIES_PER_STEP + self.bound.step_cost(item)
        spent = 0
        if item not in self.begun:
            spent = SETUP_STEPS * cost
            if part.progress(spent) >= 1.0:
                return 0
            try:
                relaxation = self.bound.relaxation(item)
            except np.linalg.LinAlgError:
                relaxation = None
            if keep or relaxation is None:
                self.begun[item] = relaxation
        else:
            relaxation = self.begun[item] if keep else self.begun.pop(item)
        if relaxation is None:
            self.begun[item] = None
            return spent
        seen = [relaxation.value]
        self.bound.found(item, seen[0])
        least = self.bound.least_chunk(item)
        chunk = int(np.clip(CHUNK_ENTRIES // entries, least, max(20, least)))
        if most_steps == QUICK_STEPS and self.bound.is_quick(item):
            most_steps = chunk
        back = -(-self.bound.patience // chunk)  # chunks
        while relaxation.iterations < most_steps:
            chunk = min(chunk, most_steps - relaxation.iterations)
            if part.progress(spent + chunk * cost) >= 1.0:
                break
            try:
                after = relaxation.iterate(chunk, lambda: self.search.done)
            except np.linalg.LinAlgError:  # what was found so far is safe
                break
            spent += chunk * cost
            self.bound.found(item, after)
            seen.append(after)
            gain = abs(after - seen[max(0, len(seen) - 1 - back)])
            if relaxation.iterations >= SETTLED and len(seen) > back and gain <= STALL * back * chunk / 20 * abs(after):
                break
        return spent
