"""MoETuner's first programme: a layer's experts in clusters of equal size and nearly equal load.

References
----------
MoETuner, arXiv 2502.06643, the load-balancing ILP; Graham, SIAM J. Appl. Math. 17 (1969) for the heaviest-first rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.searching.cp_sat import run_cp_sat
from solvers.searching.search import Search

__all__ = ["Clusters", "balance_exactly", "heaviest_first", "imbalance", "whole_loads"]

Ints = npt.NDArray[np.int64]
RESOLUTION = 2.0**40  # parts of a layer's load, where loads are not whole numbers: G times it stays below 2^63


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of one layer.

    Attributes
    ----------
    of_expert : (E,) int64
        Cluster of each expert.
    proven : bool
        Whether no clusters are better balanced.
    """

    of_expert: Ints
    proven: bool


def whole_loads(load: npt.NDArray[np.floating[Any]]) -> Ints:
    """Return a layer's loads (E,) as whole numbers: as they are, or in parts of 2^-40 of their sum."""
    if not np.array_equal(load, np.rint(load)):
        load = np.rint(load * (RESOLUTION / load.sum()))
    return load.astype(np.int64)


def imbalance(load: Ints, of_expert: Ints, num_clusters: int) -> int:
    """Return G times the programme's objective: ``sum_c |G w_c - sum_c w_c|``, a whole number."""
    weight = np.zeros(num_clusters, np.int64)
    np.add.at(weight, of_expert, load)
    return int(np.abs(num_clusters * weight - load.sum()).sum())


def heaviest_first(load: Ints, num_clusters: int) -> Ints:
    """Return the cluster of each expert, (E,), by LPT with sizes that differ by one at most.

    Heaviest expert first, into the lightest cluster that has room. ``E mod G`` clusters may have one expert more.
    """
    size, larger = divmod(len(load), num_clusters)
    of_expert = np.empty(len(load), np.int64)
    weight, held = np.zeros(num_clusters, np.int64), np.zeros(num_clusters, np.int64)
    full = np.iinfo(np.int64).max
    for expert in np.argsort(-load, kind="stable"):
        room = held < size if larger == 0 else held <= size
        cluster = int(np.where(room, weight, full).argmin())
        larger -= int(held[cluster] == size)
        of_expert[expert] = cluster
        weight[cluster] += load[expert]
        held[cluster] += 1
    return of_expert


def _least_imbalance(load: Ints, num_clusters: int) -> int:
    """Return a lower bound of `imbalance`: from whole numbers, and from the heaviest expert among the lightest."""
    G, total = num_clusters, int(load.sum())
    # Whole weights that add up to the total: at best `rest` clusters are 1 - rest/G above the mean, the others rest/G
    # below it. What one cluster has too much, the others have too little.
    rest = total % G
    lightest = int(np.sort(load)[: max(0, len(load) // G - 1)].sum())
    return max(2 * rest * (G - rest), 2 * (G * (int(load.max()) + lightest) - total))


def balance_exactly(load: Ints, num_clusters: int, search: Search) -> Clusters:
    """Solve the programme of one layer by CP-SAT.

    Parameters
    ----------
    load : (E,) int64
    num_clusters : int
        G.
    search : Search
        The part of the search that this layer may use up. A work limit gives the same clusters every time.

    Returns
    -------
    Clusters
        The best that was found, never worse than `heaviest_first`.
    """
    greedy = heaviest_first(load, num_clusters)
    total = int(load.sum())
    least = _least_imbalance(load, num_clusters)
    start = imbalance(load, greedy, num_clusters)
    if start <= least:
        return Clusters(greedy, proven=True)
    if search.progress(0) >= 1.0:
        return Clusters(greedy, proven=False)
    from ortools.sat.python import cp_model

    E, G = len(load), num_clusters
    model = cp_model.CpModel()
    x = [[model.new_bool_var("") for _ in range(G)] for _ in range(E)]
    # What some clusters have above the mean, the others lack: the sum of both is twice the sum of either.
    above = [model.new_int_var(0, start // 2, "") for _ in range(G)]
    for row in x:
        model.add_exactly_one(row)
    weights = load.tolist()
    for c in range(G):
        column = [row[c] for row in x]
        model.add_linear_constraint(sum(column), E // G, -(-E // G))
        model.add(above[c] >= G * cp_model.LinearExpr.weighted_sum(column, weights) - total)
    # Clusters have no names yet: the experts, heaviest first, open them in order.
    for rank, expert in enumerate(np.argsort(-load, kind="stable").tolist()):
        for c in range(rank + 1, G):
            model.add(x[expert][c] == 0)
    model.add(2 * sum(above) >= least)
    model.minimize(sum(above))
    # Without linear relaxations: they split experts and say nothing.
    outcome = run_cp_sat(model, search, settings={"linearization_level": 0})
    proven = outcome.status == "optimal"
    if not proven:
        search.progress(0 if search.work is None else search.work)
    if not outcome.found:
        return Clusters(greedy, proven=False)
    found = np.array([[outcome.holds(held) for held in row] for row in x]).argmax(axis=1)
    of_expert = found.astype(np.int64)
    better = proven or imbalance(load, of_expert, G) < start
    return Clusters(of_expert if better else greedy, proven=proven)
