"""Plans between one that runs and better ones: few moves with most of the gain.

Between two plans of a layer, whatever moves can be cut into cycles of GPUs: each GPU gives one expert to the next, so
every cycle alone leaves a valid plan. Cycles, in bundles, and changes that balance a layer one by one give each layer
some plans to choose from; which layer takes which, at a price per move, is a shortest path through the layers
(Viterbi), since traffic couples neighbours only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.feasibility import broken_constraints
from placement.moves.cycles import OUTSIDE, Cycles, cycles
from solvers.arrange.balance import balanced_tables
from solvers.fronts.mix import Mix

__all__ = ["POINTS", "few_moves", "fewest_with_most"]

Table = npt.NDArray[np.int32]
POINTS = 9  # searches of prices: about twice as many plans
MOST_GAIN = 0.9  # of what can be gained: the last tenth is within the noise of what plans are fitted on. By trial
BUNDLES = 8  # of cycles, in which moves are offered: finer ones cost a pairwise price each. Chosen by trial


def few_moves(problem: Problem, start: Table, targets: list[Table], points: int) -> list[Table]:
    """Return maps from `start` to the best of others, with ever more moves.

    Each layer takes its rows from the start, from changes that balance it one by one, from bundles of the exchanges
    that lead to the first target, or from a target; which one, at a price per move, is a shortest path through the
    layers (`Mix`).

    Parameters
    ----------
    problem : Problem
    start : (L, S) int32
    targets : list of (L, S) int32
        Under the names that move least.
    points : int
        About half as many as maps that are returned.
    """
    options = [start, *targets]
    if problem.load_counts:
        options += balanced_tables(problem, start)
    if targets:
        options += _bundled(problem, start, targets[0])
    kept = [table for table in options if not broken_constraints(problem, table).found]
    return Mix(problem, kept).front(points)


def fewest_with_most(gains: npt.NDArray[np.float64]) -> int:
    """Return the first plan with nine tenths of the largest gain, of plans with ever more moves.

    Parameters
    ----------
    gains : (N,) float64
        What moving costs taken off, where that is known in the same unit.
    """
    best = float(gains.max())
    return int(np.flatnonzero(gains >= (MOST_GAIN * best if best > 0 else best))[0])


def _bundled(problem: Problem, start: Table, target: Table) -> list[Table]:
    """Return maps on the way from a start to a target, under names that move little: exchanges in bundles.

    Each bundle alone, then the first few of them, in the order of what each saves per move.
    """
    known = [cycles(a, b, problem.num_gpus) for a, b in zip(start, target, strict=True)]
    bundles = [_applied(start, problem.slots_per_gpu, known, _bundle(known, number)) for number in range(BUNDLES)]
    order = Mix(problem, [start, *bundles]).order()
    prefixes = []
    for length in range(1, BUNDLES):
        chosen = [
            [item for number in order[layer][:length] for item in _bundle(known, number)[layer]]
            for layer in range(problem.num_layers)
        ]
        prefixes.append(_applied(start, problem.slots_per_gpu, known, chosen))
    return [*bundles, *prefixes]


def _bundle(every: list[Cycles], number: int) -> list[list[int]]:
    """Return the cycles of a bundle, layer by layer."""
    return [list(range(number, len(layer), BUNDLES)) for layer in every]


def _applied(start: Table, per_gpu: int, every: list[Cycles], chosen: list[list[int]]) -> Table:
    """Return the start with the chosen cycles of each layer."""
    table = start.copy()
    for row, known, numbers in zip(table, every, chosen, strict=True):
        gone: dict[int, list[int]] = {}
        new: dict[int, list[int]] = {}
        for expert, a, b in (move for number in numbers for move in known[number]):
            gone.setdefault(a, []).append(expert)
            new.setdefault(b, []).append(expert)
        for gpu in gone.keys() - {OUTSIDE}:
            slots = row[gpu * per_gpu : (gpu + 1) * per_gpu]
            for old, expert in zip(gone[gpu], new[gpu], strict=True):
                slots[np.flatnonzero(slots == old)[0]] = expert
    return table
