"""What a trial asks: what to exchange, whether a replica keeps its tokens, the experts of the busiest GPUs."""

from __future__ import annotations

import numba

from placement.loads.policies import FAIR, SAME_NODE
from solvers.methods.annealing.replay.kernels.state import Ints
from solvers.searching.kernels.random import State, next_below

__all__ = ["item_alike", "keeps_tokens", "most_active"]


@numba.njit(nogil=True, cache=True)
def item_alike(
    i: int, x: int, reach: int, order: Ints, rank: Ints, replicas: Ints, counts: Ints, item_at: Ints, rng: State
) -> int:
    """Return an item of an expert at most `reach` places from x by load; i, that of x, where a draw leads to none."""
    r = rank[x] + next_below(rng, 2 * reach + 1) - reach
    if r < 0 or r >= len(order):
        return i
    y = order[r]
    return int(item_at[y, replicas[y, next_below(rng, counts[y])]])


@numba.njit(nogil=True, cache=True)
def most_active(active_on: Ints) -> float:
    """Return the sum over batches of the most experts with tokens on a GPU."""
    total = 0
    for b in range(len(active_on)):
        most = 0
        for g in range(active_on.shape[1]):
            most = max(most, active_on[b, g])
        total += most
    return float(total)


@numba.njit(nogil=True, cache=True)
def keeps_tokens(x: int, a: int, b: int, replicas: Ints, n: int, node: Ints, policy: int) -> bool:
    """Whether the replica of x on GPU a, one of n replicas, serves the same tokens once it is on b."""
    if n == 1:
        return True
    if policy == SAME_NODE and node[a] == node[b]:
        for c in range(n):
            g = replicas[x, c]
            if g != a and node[g] == node[a]:
                return False
        return True
    if policy == FAIR:
        for c in range(n):
            g = replicas[x, c]
            if g != a and (g < a) != (g < b):
                return False
        return True
    return False
