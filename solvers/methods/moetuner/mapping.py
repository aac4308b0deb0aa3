"""MoETuner's second programme: which cluster of each layer goes onto which GPU.

References
----------
MoETuner, arXiv 2502.06643, the ILP that maps clusters to GPUs; the dynamic programme is Bellman's principle.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from placement import Topology
from solvers.methods.moetuner.kernels import extend
from solvers.searching.search import Search
from solvers.searching.threads import run_together

__all__ = ["assign_in_turns", "busiest_links", "link_times", "map_exactly", "transitions"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PAIRS_PER_TRIAL = 10  # pairs of permutations that take about as long as a trial of annealing; by the order of magnitude
MAX_SWEEPS = 50  # it settles in a few; this ends a cycle of equally good mappings


def transitions(affinity: npt.NDArray[np.int64], of_expert: Ints, num_clusters: int) -> Floats:
    """Return ``D[l, c, d]``: pairs that go from cluster c of layer l to cluster d of layer l+1, (L-1, G, G)."""
    one_hot = (of_expert[:, :, None] == np.arange(num_clusters)).astype(np.float64)
    counts = np.empty((len(affinity), num_clusters, num_clusters))
    for layer, pairs in enumerate(affinity):
        counts[layer] = one_hot[layer].T @ pairs @ one_hot[layer + 1]
    return counts


def link_times(topology: Topology) -> Floats:
    """Return the time per pair from GPU to GPU, ``1 / bw[g, h]``, (G, G): 1 for the slowest, 0 on the diagonal.

    Where the topology knows no bandwidths, its hop costs, which are times per byte.
    """
    between = ~np.eye(topology.num_gpus, dtype=bool)
    time = topology.hop_cost.copy()
    if topology.bandwidth_gb_s is not None:
        time = np.divide(1.0, topology.bandwidth_gb_s, out=np.zeros(time.shape), where=between)
    slowest = float(time.max())
    return time / slowest if slowest > 0 else time


def busiest_links(counts: Floats, link_time: Floats, gpu: Ints) -> float:
    """Return the programme's objective for clusters on GPUs (L, G): the sum over l of the busiest link's time."""
    total = 0.0
    for layer, pairs in enumerate(counts):
        total += float((pairs * link_time[np.ix_(gpu[layer], gpu[layer + 1])]).max())
    return total


def map_exactly(counts: Floats, link_time: Floats, search: Search) -> Ints | None:
    """Return the GPU of each cluster, (L, G), that minimises `busiest_links`.

    The cost adds up over neighbouring layers, so the optimum is a shortest path through the G! permutations of every
    layer: ``V[l+1](q) = min over p of V[l](p) + max over g != h of D[l, p(g), q(h)] / bw[g, h]``, where p(g) is the
    cluster on GPU g.

    Parameters
    ----------
    counts : (L-1, G, G) float64
    link_time : (G, G) float64
    search : Search
        The part of the search that this may use up.

    Returns
    -------
    (L, G) int64 or None
        None if the search ends first.
    """
    G = len(link_time)
    states: npt.NDArray[np.int8] = np.array(list(itertools.permutations(range(G))), dtype=np.int8)
    value = np.zeros(len(states))
    came_from = np.zeros((len(counts) + 1, len(states)), np.int64)
    chunk = max(1, -(-len(states) // (8 * search.workers)))
    spent = 0
    for layer, pairs in enumerate(counts):
        spent += 1 + len(states) ** 2 // PAIRS_PER_TRIAL
        if search.progress(spent) >= 1.0:
            return None
        step, order = np.empty(len(states)), np.argsort(value, kind="stable")

        def task(
            first: int,
            layer: int = layer,
            pairs: Floats = pairs,
            value: Floats = value,
            step: Floats = step,
            order: Ints = order,
        ) -> Callable[[], None]:
            def run() -> None:
                if search.progress(0) < 1.0:
                    last = min(first + chunk, len(states))
                    extend(pairs, link_time, states, value, order, first, last, step, came_from[layer + 1])

            return run

        run_together(search, [task(first) for first in range(0, len(states), chunk)])
        if search.progress(0) >= 1.0:
            return None
        value = step
    gpu = np.empty((len(counts) + 1, G), np.int64)
    state = int(value.argmin())
    for layer in range(len(counts), -1, -1):
        gpu[layer, states[state]] = np.arange(G)
        state = int(came_from[layer, state])
    return gpu


def assign_in_turns(counts: Floats, link_time: Floats, search: Search) -> Ints:
    """Return GPUs of the clusters, (L, G), by linear assignment: first along the layers, then odd and even in turns.

    With its neighbours fixed, a layer's sum of times over all links is linear in its mapping. Of the mappings after
    each sweep, the one with the least `busiest_links` is returned; nothing is proven.
    """
    L, G = len(counts) + 1, len(link_time)
    gpu = np.tile(np.arange(G), (L, 1))
    best, least = gpu.copy(), busiest_links(counts, link_time, gpu)
    for sweep in range(MAX_SWEEPS):
        before = gpu.copy()
        for layer in range(1, L) if sweep == 0 else (*range(0, L, 2), *range(1, L, 2)):
            if search.done:
                return best
            cost = np.zeros((G, G))
            if layer > 0:
                cost += counts[layer - 1].T @ link_time[gpu[layer - 1]]
            if layer + 1 < L and sweep > 0:
                cost += counts[layer] @ link_time[:, gpu[layer + 1]].T
            gpu[layer] = _assign(cost, gpu[layer])
        total = busiest_links(counts, link_time, gpu)
        if total < least:
            best, least = gpu.copy(), total
        if sweep > 0 and np.array_equal(before, gpu):
            break
    return best


def _assign(cost: Floats, present: Ints) -> Ints:
    """Return the columns, one per row, of the least sum; those of `present` where no others are better."""
    from scipy.optimize import linear_sum_assignment

    row, column = linear_sum_assignment(cost)
    now, then = float(cost[row, present].sum()), float(cost[row, column].sum())
    return column.astype(np.int64) if then < now - 1e-12 * abs(now) else present
