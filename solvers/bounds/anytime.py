"""Raising the bound of a search for as long as it may take, on all workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from placement import Problem
from placement.bounds import load_floor
from solvers.bounds.chain import ChainBound
from solvers.bounds.dispatch import DispatchBound
from solvers.bounds.relaxation import Relaxation
from solvers.search import Search
from solvers.threads import run_together

__all__ = ["raise_bound"]

Item = TypeVar("Item", contravariant=True)
CHUNK_ENTRIES = 1_300_000  # steps between two safe bounds, times entries of the matrix
SETTLED = 80  # steps before a small gain ends a relaxation: triangles come in after 40
MOST_STEPS = (100, 200, 600)  # per pass; each pass has longer windows
STALL = 1e-4  # relative gain of a chunk below which a relaxation is done
SHARES = (0.25, 0.5, 0.97)
WORK_PER_ENTRY = 1 / 40  # what a step on one entry of a matrix costs, in trials


class Parts(Protocol[Item]):
    """A bound that is put together from relaxations."""

    def relaxation(self, window: Item) -> Relaxation:
        """Return the relaxation of a part."""

    def found(self, window: Item, kept: float) -> None:
        """Take the bound of a part."""

    def total(self) -> float:
        """Return the bound of the traffic term, from what was found so far."""


def raise_bound(problem: Problem, search: Search) -> None:
    """Report better and better lower bounds to `search` until nothing is gained or it is done.

    Parameters
    ----------
    problem : Problem
        Any; where no relaxation is known, the instant bound stands.
    search : Search
        Its time is dealt out evenly to the relaxations; under a work limit, its work.
    """
    from threadpoolctl import threadpool_limits

    if problem.num_gpus == 1 or not problem.objective.traffic_weight:
        return
    with threadpool_limits(1):  # the workers are threads already
        if problem.objective.execution == "context_coherent":
            affinity = problem.profile.affinity
            if affinity is None or not affinity.any():
                return
            chain = ChainBound(problem)
            widths = chain.widths()
            for number, width in enumerate(widths):
                share = 0.97 if number == len(widths) - 1 else SHARES[number]
                _pass(problem, search.part(share, number), chain, chain.windows(width), MOST_STEPS[number])
                if search.done or search.proven:
                    return
        elif problem.objective.dedup != "none":
            dispatch = DispatchBound(problem)
            if dispatch.parts:
                _pass(problem, search.part(0.97, 0), dispatch, dispatch.parts, MOST_STEPS[1])


def _pass(problem: Problem, search: Search, bound: Parts[Item], items: Sequence[Item], most_steps: int) -> None:
    """Improve each relaxation for its share of the time."""
    floor = load_floor(problem)
    lanes = max(1, min(search.workers, len(items)))

    def lane(first: int) -> Callable[[], None]:
        own = items[first::lanes]
        # Lanes run at once: each has all of the time, and its part of the work.
        whole = search.part(1.0, first, work_share=len(own) / len(items))

        def run() -> None:
            for done, item in enumerate(own):
                part = whole.part(1 / (len(own) - done), 0, work_share=1 / len(own))
                if part.done or search.proven:
                    return
                _improve(bound, item, part, most_steps)
                search.bound(floor + bound.total())

        return run

    run_together(search, [lane(first) for first in range(lanes)])


def _improve(bound: Parts[Item], item: Item, part: Search, most_steps: int) -> None:
    relaxation = bound.relaxation(item)
    bound.found(item, relaxation.value)
    cost = max(1, int(relaxation.weight.size * WORK_PER_ENTRY))
    chunk = int(np.clip(CHUNK_ENTRIES // relaxation.weight.size, 4, 20))
    steps, before = 0, relaxation.value
    while steps < most_steps and part.progress(steps * cost) < 1.0:
        after = relaxation.iterate(chunk)
        steps += chunk
        bound.found(item, after)
        if steps >= SETTLED and before - after <= STALL * chunk / 20 * abs(before):
            return
        before = after
