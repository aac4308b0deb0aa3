"""What replicas are worth in each layer, by short searches with ever more of them, and the budget shared by that."""

from __future__ import annotations

from operator import attrgetter

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.shares import guarded_gpu_load
from placement.plan.plan import replicas_on_gpu
from solvers.arrange.replica_budget import add_replicas, replica_levels, share_out
from solvers.methods.annealing.replay.layer import FEW, Layer, anneal_once
from solvers.methods.annealing.replay.levels import Grounds
from solvers.methods.load_balance.solver import balanced
from solvers.searching.search import Search
from solvers.searching.threads import each_layer

__all__ = ["budgeted_by_load", "budgeted_rows"]

Table = npt.NDArray[np.int32]
HOT = 2.0  # first temperature: these searches are short and start from good rows; chosen by trial
# Of slots; with fewer, half of them is too much for a second start at each level; chosen by trial.
EVEN_TRIALS_PER_PAIR = 40


def budgeted_rows(
    grounds: Grounds, start: Table, search: Search, *, trials: float, cold: float
) -> tuple[Table, list[int]]:
    """Share the budget of replicas out to the layers by short searches with ever more of them.

    Parameters
    ----------
    grounds : Grounds
        Of a problem with a budget of replicas.
    start : (L, S) int32
        A map within the budget. What it holds already is paid for; most often no replicas.
    search : Search
    trials : float
        About how many a layer gets in all. With enough, each level is also searched from a balanced row.
    cold : float
        Last temperature of the searches.

    Returns
    -------
    (L, S) int32, list of int
        The best maps found within the budgets, and the slots that each layer may use.
    """
    problem = grounds.problem
    layers, budget, limits = problem.num_layers, problem.replica_budget, problem.constraints
    assert budget is not None
    held = (start >= 0).sum(axis=1)
    left = budget + layers * problem.num_experts - int(held.sum())
    levels = replica_levels(int(problem.capacity.sum() - held.max()), left, layers)
    plain = (held == problem.num_experts).all() and not (limits.pins or limits.forbidden or limits.groups)
    longer = trials >= EVEN_TRIALS_PER_PAIR * problem.num_slots**2
    even = [balanced(problem, extra) for extra in levels] if plain and longer else []
    cost_of = attrgetter("cost")
    cost = np.zeros((layers, len(levels)))
    rows = np.repeat(start[:, None], len(levels), axis=1)

    def trace(part: Search, layer: int) -> None:
        row, best = start[layer], Layer(grounds.of(), start[layer], layer)
        for number, extra in enumerate(levels):
            if number and part.done:
                break
            level = part.part(1 / (len(levels) - number), number, work_share=1 / len(levels))
            most = int(held[layer] + extra)
            row = add_replicas(problem, layer, row, most - int((row >= 0).sum()))
            starts = [row, *(table[layer] for table in even[number : number + 1])]
            found = []
            for run, begin in enumerate(starts):
                first = Layer(grounds.of(FEW), begin, layer, most=most, like=best)
                half = level.part(1 / (len(starts) - run), run, work_share=1 / len(starts))
                found.append(anneal_once(grounds, first, half, number, hot=HOT, cold=cold))
            now = min(found, key=cost_of)
            row, best = now.row, min(best, now, key=cost_of)
            rows[layer, number:], cost[layer, number:] = best.row, best.cost

    each_layer(problem, search, trace)
    given = share_out(cost, levels, left)
    return _chosen(rows, levels, given), (held + given).tolist()


def budgeted_by_load(problem: Problem) -> Table:
    """Return a balanced map whose replicas are in the layers where loads need them most: first those above the cap.

    Parameters
    ----------
    problem : Problem
        With a budget of replicas, without pins, exclusions and groups.

    Returns
    -------
    (L, S) int32
        -1 for an empty slot. Where loads are even without replicas, the budget is not used up.
    """
    layers, budget = problem.num_layers, problem.replica_budget
    assert budget is not None
    levels = replica_levels(int(problem.capacity.sum()) - problem.num_experts, budget, layers)
    tables = [balanced(problem, extra) for extra in levels]
    caps = np.full(layers, np.inf) if problem.load_caps is None else problem.load_caps
    cost = np.zeros((layers, len(levels)))
    for level, table in enumerate(tables):
        load = guarded_gpu_load(problem, replicas_on_gpu(table, problem.num_experts, problem.num_gpus))
        excess = np.maximum(load - caps[:, None], 0).sum(axis=1)
        cost[:, level] = problem.objective.load_excess_weight * excess + load.max(axis=1)
    return _chosen(np.stack(tables, axis=1), levels, share_out(cost, levels, budget))


def _chosen(rows: Table, levels: npt.NDArray[np.int64], given: npt.NDArray[np.int64]) -> Table:
    """Return of each layer's rows, (L, n, S), that of the largest level within what it is given."""
    return rows[np.arange(len(rows)), np.searchsorted(levels, given, side="right") - 1]
