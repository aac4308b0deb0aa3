"""Layers that don't depend on each other, searched here on threads or dealt out to workers of an executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.searching.limits import Limits
from solvers.searching.search import Search
from solvers.searching.threads import each_layer
from traces import InputError
from traces.support.parallel import available_cores, map_executor

__all__ = ["LayerWork", "search_layers", "without_pairs"]

Row = npt.NDArray[np.integer[Any]]
LayerCall = Callable[[Search, int], Row]


class LayerWork(Protocol):
    """A search of single layers under dispatch; pickles, where it is dealt out."""

    @property
    def problem(self) -> Problem:
        """The problem of all layers."""

    def prepared(self) -> LayerCall:
        """Return what searches a layer, with its part of the search, and returns its row of the map."""


def search_layers(work: LayerWork, search: Search) -> dict[int, Row]:
    """Search every layer with its part of time and work, and return the rows of those that were reached.

    With an executor and a work limit, workers get about as many layers each, and send back their rows. A layer's search
    depends on the problem, the seed and its work alone, so that the rows are those that one machine finds.
    """
    if search.executor is not None and search.work is not None and search.remaining_s is None:
        return _dealt(work, search, search.executor)
    call, rows = work.prepared(), dict[int, Row]()

    def one(part: Search, layer: int) -> None:
        rows[layer] = call(part, layer)

    each_layer(work.problem, search, one)
    return rows


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What is dealt out, but for the layers; pickles."""

    work: LayerWork
    trials: int
    seed: int

    def run(self, layers: Sequence[int]) -> dict[int, Row]:
        """Search some layers, one after the other."""
        problem, call = self.work.problem, self.work.prepared()
        whole = Search(problem, Limits(work=self.trials), seed=self.seed, workers=1)
        share = 1 / problem.num_layers
        return {layer: call(whole.part(1.0, layer, work_share=share), layer) for layer in layers}


def _dealt(work: LayerWork, search: Search, make: Callable[[], Executor]) -> dict[int, Row]:
    first = make()
    made = [first]

    def make_again() -> Executor:
        return made.pop() if made else make()

    layers = work.problem.num_layers
    workers = min(layers, int(getattr(first, "_max_workers", None) or available_cores()))
    assert search.work is not None
    task, rows = _Task(work=work, trials=search.work, seed=search.seed), dict[int, Row]()
    try:
        for found in map_executor(make_again, task.run, [range(n, layers, workers) for n in range(workers)], _lost):
            rows |= found
    except KeyboardInterrupt:  # as of a search on threads: what there is, is kept
        search.cancel()
    search.progress(search.work)  # all of it is spent
    return rows


def without_pairs(problem: Problem) -> Problem:
    """Return a problem of dispatch without the matrices over pairs of experts, which take most of what is sent."""
    profile = replace(problem.profile, affinity=None, coactivation=None)
    slots = problem.slots_per_gpu if problem.redundant_experts is None else 0
    return replace(problem, profile=profile, slots_per_gpu=slots)


def _lost(layers: Sequence[int]) -> InputError:
    detail = f"The workers that searched {len(layers)} layers died, again and again, out of memory most likely."
    return InputError.of("worker_died", "/executor", detail, "Give workers more memory, or use more of them.")
