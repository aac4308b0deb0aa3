"""Plans that lie between those of a front's pool, mixed layer by layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from placement import Pin, Problem
from placement.cost.feasibility import load_cap_misses
from placement.moves.freedom import Freedom
from placement.moves.relabel import relabelled_table
from placement.plan.plan import replicas_on_gpu
from solvers.fronts.few import few_moves
from solvers.fronts.mix import Mix
from solvers.fronts.pareto import nondominated
from solvers.fronts.search import FrontSearch

__all__ = ["add_balanced_mixes", "add_mixes", "with_few_free"]

Table = npt.NDArray[np.int32]
MAX_TARGETS = 6  # better plans that moves may lead to, each in two namings. Chosen by trial
# Plans; under context-coherent execution every two of them are priced in every layer; 576 prices per layer. Chosen by
# trial.
MAX_MIXED = 24


def add_mixes(run: FrontSearch, points: int) -> None:
    """Add to the pool what lies between its first plan, the start, and its best ones."""
    problem, start = run.problem, run.pool[0]
    better = sorted((item for item in run.pool[1:]), key=lambda item: item.score.total)[:MAX_TARGETS]
    better = [item for item in better if item.score.total < start.score.total]
    if not better or run.stopped:
        return
    source = better[0]
    targets = [named for item in better for named in (_renamed(problem, start.table, item.table), item.table)]
    for table in few_moves(problem, start.table, targets, points):
        if run.out_of_time:
            return
        run.add(table, problem, source, {"against": "bytes_moved"})


def add_balanced_mixes(run: FrontSearch, points: int) -> None:
    """Add to the pool what its plans, mixed layer by layer, have between balance and traffic."""
    if run.stopped or len(run.pool) < 2:
        return
    keeping = [item for item in run.pool if not load_cap_misses(run.problem, item.table)] or run.pool
    best = nondominated([item.imbalance for item in keeping], [item.traffic for item in keeping])
    chosen = [keeping[item] for item in best][:MAX_MIXED]
    chosen += [item for item in reversed(keeping) if item not in chosen][: MAX_MIXED - len(chosen)]
    mix = Mix(run.problem, [item.table for item in chosen], [item.score for item in chosen])
    for table in mix.front(points):
        if run.out_of_time:
            return
        run.add(table, run.problem, chosen[0], {"against": "imbalance", "mixed": True})


def with_few_free(run: FrontSearch, share: float) -> Problem | None:
    """Return the problem with all experts pinned to their GPUs of the start plan but a share of each layer's.

    Free are the experts that the best plan so far moves, the heaviest first.

    Returns
    -------
    Problem or None
        None where no plan is better than the start.
    """
    problem, start = run.problem, run.pool[0]
    best = min(run.pool, key=lambda item: item.score.total)
    if best is start:
        return None
    before, after = (replicas_on_gpu(item.table, problem.num_experts, problem.num_gpus) for item in (start, best))
    moved = (before != after).any(axis=2)
    count = max(2, round(share * problem.num_experts))
    order = np.argsort(-(problem.relative_load + moved), axis=1, kind="stable")[:, :count]
    held = before > 0
    np.put_along_axis(held, order[:, :, None], False, axis=1)
    layer_ids = problem.profile.layer_ids
    pins = tuple(
        Pin(expert=int(expert), gpu=int(gpu), layer_id=int(layer_ids[layer]))
        for layer, expert, gpu in np.argwhere(held)
    )
    constraints = replace(problem.constraints, pins=(*problem.constraints.pins, *pins))
    return replace(problem, constraints=constraints)


def _renamed(problem: Problem, start: Table, target: Table) -> Table:
    """Name the target's GPUs so that as few experts as possible move."""
    return relabelled_table(start, target, problem.num_experts, Freedom.of(problem))[0]
