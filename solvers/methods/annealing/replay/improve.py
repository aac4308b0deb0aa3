"""Search under dispatch: fewer messages per token by exact replay of sampled tokens, replicas included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.arrange.replica_budget import add_replicas
from solvers.methods.annealing.replay.budgets import budgeted_rows
from solvers.methods.annealing.replay.layer import FEW, Layer, may_be_less, search_layer
from solvers.methods.annealing.replay.levels import Grounds
from solvers.methods.eplb.router_groups import grouped_eplb
from solvers.methods.eplb.start import base_plan, eplb_apart
from solvers.searching.dealing import search_layers, without_pairs
from solvers.searching.search import Search
from solvers.survival.repair import kept_alive

__all__ = ["LayerSearch", "improve_fanout"]

Table = npt.NDArray[np.int32]
DEFAULT_TRIALS_PER_LAYER = 400_000  # without limits on time and work: some seconds per layer
NOMINAL_TRIALS_PER_S = 1_000_000  # of a core, with replicas; only to choose a temperature
# Times the first temperature, without a start plan, if loads count and there are so many trials per pair of slots (with
# fewer, it has no time to cool down); more if the largest load has a weight: docs/decisions/0032-soft-caps.md.
HOTTER, HOT_TRIALS_PER_PAIR = 2.0, 5
HOTTEST, HOTTEST_TRIALS_PER_PAIR = 8.0, 20
WHOLE_TRIALS_PER_PAIR = 5  # with fewer, a search from whole groups does not get far from them; chosen by trial
BUDGET_SHARE = 0.3  # of time and work, to tell what replicas are worth in each layer. Chosen by trial


def improve_fanout(problem: Problem, search: Search, *, hot: float, cold: float) -> None:
    """Anneal every layer from EPLB's plan (or the search's start) and offer the result.

    Where the router keeps to groups of experts and these can be dealt out to the nodes, no layer ends worse than in
    EPLB's hierarchical plan, which keeps groups whole, and with enough time layers that cost less there start there.

    Parameters
    ----------
    problem : Problem
        Dispatch; layers are independent of each other.
    search : Search
    hot, cold : float
        Temperatures in units of the mean change of traffic by a random trial. With a start plan, `hot` is divided by 4,
        so as not to lose what it starts from. Else it counts `HOTTER` or `HOTTEST` times where loads count
        and there is time.
    """
    base = base_plan(problem, search)
    if search.best is None or not search.offers_take_long:
        search.offer(base, 0)
    start = base if search.start is None else np.asarray(search.start, dtype=np.int32)
    if problem.num_gpus == 1:
        return
    grouped = grouped_eplb(problem) if search.start is None else None
    whole = None if grouped is None else eplb_apart(problem, grouped)
    if whole is not None:
        if not search.offers_take_long:
            search.offer(whole, 1)
        whole = _drop_second_replicas(whole, problem.num_gpus)
    if search.work is None and search.remaining_s is None:
        search = search.part(1.0, 0)
        search.work = DEFAULT_TRIALS_PER_LAYER * problem.num_layers
    trials = _trials_per_layer(problem, search)
    if search.start is not None:
        hot /= 4  # what it starts from is not to be lost
    elif problem.objective.imbalance_weight and trials >= HOTTEST_TRIALS_PER_PAIR * problem.num_slots**2:
        hot *= HOTTEST
    elif problem.load_counts and trials >= HOT_TRIALS_PER_PAIR * problem.num_slots**2:
        hot *= HOTTER
    start = _drop_second_replicas(start, problem.num_gpus)
    most: list[int] = [problem.num_slots] * problem.num_layers
    if problem.replicas_limited:
        part = search.part(BUDGET_SHARE, 0)
        start, most = budgeted_rows(Grounds(problem), start, part, trials=trials, cold=cold)
        search = search.part(1.0, 1, work_share=1 - BUDGET_SHARE)
    elif search.start is None and problem.sizes.survival is None:
        start = np.stack([add_replicas(problem, layer, row, problem.num_slots) for layer, row in enumerate(start)])
    start = kept_alive(problem, start, search.effort)
    work = LayerSearch(
        problem=problem if search.executor is None else without_pairs(problem),
        start=start,
        whole=whole,
        from_whole=trials >= WHOLE_TRIALS_PER_PAIR * problem.num_slots**2,
        most=tuple(most),
        hot=hot,
        cold=cold,
    )
    table = start.copy()
    for layer, row in search_layers(work, search).items():
        table[layer] = row
    search.offer(table, 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerSearch:
    """Annealing of single layers; pickles.

    Attributes
    ----------
    problem : Problem
    start : (L, S) int32
    whole : (L, S) int32 or None
        Another plan, with whole groups of the router on nodes: no layer ends worse.
    from_whole : bool
        Whether layers that cost less there start there.
    most : tuple of int
        Used slots of each layer, at most.
    hot, cold : float
        See `improve_fanout`.
    """

    problem: Problem
    start: Table
    whole: Table | None
    from_whole: bool
    most: tuple[int, ...]
    hot: float
    cold: float

    def prepared(self) -> Callable[[Search, int], npt.NDArray[np.integer[Any]]]:
        """Return what anneals a layer and returns its row."""
        return partial(self._row, Grounds(self.problem))

    def _row(self, grounds: Grounds, part: Search, layer: int) -> npt.NDArray[np.integer[Any]]:
        first = Layer(grounds.of(FEW), self.start[layer], layer, most=self.most[layer])
        other = None if self.whole is None else Layer(grounds.of(FEW), self.whole[layer], layer, like=first)
        if other is not None and self.from_whole and other.cost < first.cost:
            first, other = other, first
        found = search_layer(grounds, first, part, hot=self.hot, cold=self.cold)
        if other is not None and may_be_less(other, found):
            found = min(found, Layer(grounds.of(), other.row, layer, like=first), key=attrgetter("cost"))
        return found.row


def _trials_per_layer(problem: Problem, search: Search) -> float:
    """Return about how many trials there will be for a layer."""
    if search.work is not None:
        return search.work / problem.num_layers
    return (search.remaining_s or 0.0) * search.workers / problem.num_layers * NOMINAL_TRIALS_PER_S


def _drop_second_replicas(table: Table, num_gpus: int) -> Table:
    """Empty the slots that hold a second replica on the same GPU: the kernel knows one per expert and GPU."""
    result = np.asarray(table, dtype=np.int32).reshape(len(table) * num_gpus, -1).copy()
    for slot in range(1, result.shape[1]):
        result[(result[:, :slot] == result[:, slot, None]).any(axis=1), slot] = -1
    return result.reshape(table.shape)
