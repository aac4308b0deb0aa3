"""A layer's loads: what each replica serves, what a change costs, and the books after it."""

from __future__ import annotations

import numba
import numpy as np

from placement.loads.policies import FAIR, SAME_NODE
from solvers.methods.annealing.replay.kernels.state import (
    Floats,
    Ints,
    LayerModel,
    LayerState,
    Loads,
    Prices,
    Split,
)

__all__ = [
    "add_shares",
    "exchange_cost",
    "expert_share",
    "home_variance_change",
    "load_cost",
    "sum_up",
    "take_home_shares",
    "take_loads",
]


@numba.njit(nogil=True, cache=True)
def expert_share(gpus: Ints, count: int, homes: Floats, split: Split, share: Floats) -> None:
    """Fill ``share[c]``, what replica c serves of an expert's tokens (as `placement.loads.policies.replica_share`).

    Parameters
    ----------
    gpus : (>= count,) integers
        Ascending.
    homes : (G,) float64
        Share of the expert's tokens by home GPU; without effect where all homes are alike.
    """
    policy, node_of_gpu, node_size, G = split.policy, split.node_of_gpu, split.node_size, len(split.fair)
    for c in range(count):
        share[c] = 0.0
    far = 1.0
    if policy != FAIR and split.alike:
        one = 1.0 / G
        begin = 0
        while begin < count:
            end = begin + 1
            if policy == SAME_NODE:
                node = node_of_gpu[gpus[begin]]
                while end < count and node_of_gpu[gpus[end]] == node:
                    end += 1
                near = (node_size[node] - (end - begin)) * one
            else:
                near = 0.0
            for c in range(begin, end):
                share[c] = one + near / (end - begin)
            far -= (end - begin) * one + near
            begin = end
        far = max(far, 0.0)
    elif policy != FAIR:
        far = 0.0
        for h in range(G):
            near = 0
            own = -1
            for c in range(count):
                if gpus[c] == h:
                    own = c
                elif policy == SAME_NODE and node_of_gpu[gpus[c]] == node_of_gpu[h]:
                    near += 1
            if own >= 0:
                share[own] += homes[h]
            elif near:
                for c in range(count):
                    if node_of_gpu[gpus[c]] == node_of_gpu[h]:
                        share[c] += homes[h] / near
            else:
                far += homes[h]
    for c in range(count):
        share[c] += far / count


@numba.njit(nogil=True, cache=True)
def add_shares(e: int, sign: float, change: Floats, replicas: Ints, counts: Ints, split: Split) -> None:
    """Add the expert's share of its tokens on each GPU, relative to the fair shares, to `change` (G,)."""
    fair, share, homes = split.fair, split.share, split.homes
    if counts[e] == 1:
        change[replicas[e, 0]] += sign / fair[replicas[e, 0]]
        return
    expert_share(replicas[e], counts[e], homes[min(e, len(homes) - 1)], split, share)
    for c in range(counts[e]):
        change[replicas[e, c]] += sign * share[c] / fair[replicas[e, c]]


@numba.njit(nogil=True, cache=True)
def load_cost(x: int, y: int, dx: Floats, dy: Floats, by_homes: Floats, loads: Loads, prices: Prices) -> float:
    """Return the cost of a layer's loads if the shares of experts x and y (-1: none) change.

    Parameters
    ----------
    x, y : int
    dx, dy : (G,) float64
        Change of the experts' shares on each GPU, relative to the fair shares.
    by_homes : (G,) float64
        Change of the variances by homes.
    loads : Loads
    prices : Prices
    """
    load, covariance, own, varies, gpu_load, overlap, variance = loads
    cap, excess_weight, max_weight, margin, spread_weight, spread_free = prices
    known = len(covariance) > 0
    largest = 0.0
    excess = 0.0
    spread = 0.0
    for g in range(len(gpu_load)):
        value, square = gpu_load[g], variance[g] + by_homes[g]
        if x >= 0 and dx[g] != 0.0:
            value += dx[g] * load[x]
            if known:
                square += dx[g] * (2.0 * overlap[g, x] + dx[g] * own[x])
                if y >= 0:
                    square += 2.0 * dx[g] * dy[g] * covariance[x, y]
        if y >= 0 and dy[g] != 0.0:
            value += dy[g] * load[y]
            if known:
                square += dy[g] * (2.0 * overlap[g, y] + dy[g] * own[y])
        largest = max(largest, value)
        if varies:
            spread += square
            if margin != 0.0:
                value += margin * np.sqrt(max(square, 0.0))
        if value > cap:
            excess += value - cap
    cost = max_weight * largest + excess_weight * excess
    if varies and spread_weight != 0.0:
        cost += spread_weight * max(np.sqrt(max(spread, 0.0) / len(gpu_load)) - spread_free, 0.0)
    return cost


@numba.njit(nogil=True, cache=True)
def sum_up(gpu_load: Floats, variance: Floats, prices: Prices, sums: Floats, highest: Ints) -> None:
    """Fill what `exchange_cost` needs of all GPUs: their loads above the cap, variances, and largest loads."""
    sums[:] = 0.0
    highest[:] = -1
    for g in range(len(gpu_load)):
        value = gpu_load[g]
        if prices.margin != 0.0:
            value += prices.margin * np.sqrt(max(variance[g], 0.0))
        sums[0] += max(value - prices.cap, 0.0)
        sums[1] += variance[g]
        place = 3
        while place > 0 and (highest[place - 1] < 0 or gpu_load[highest[place - 1]] < gpu_load[g]):
            place -= 1
        if place < 3:
            for k in range(2, place, -1):
                highest[k] = highest[k - 1]
            highest[place] = g


@numba.njit(nogil=True, cache=True, inline="always")
def _above(load: float, variance: float, cap: float, margin: float) -> float:
    if margin != 0.0:
        load += margin * np.sqrt(max(variance, 0.0))
    return max(load - cap, 0.0)


@numba.njit(nogil=True, cache=True)
def exchange_cost(
    x: int,
    y: int,
    a: int,
    b: int,
    x_share: float,
    y_share: float,
    fair: Floats,
    loads: Loads,
    prices: Prices,
    sums: Floats,
    highest: Ints,
) -> float:
    """Return the cost of a layer's loads if shares of experts x on GPU a and y on b (-1: none) change places.

    As `load_cost`, from what `sum_up` has left, without a look at the other GPUs.
    """
    load, covariance, own, varies, gpu_load, overlap, variance = loads
    xa, xb = -x_share / fair[a], x_share / fair[b]
    ya, yb = y_share / fair[a], -y_share / fair[b]
    at_a, at_b, square_a, square_b = gpu_load[a], gpu_load[b], variance[a], variance[b]
    if x >= 0:
        at_a += xa * load[x]
        at_b += xb * load[x]
    if y >= 0:
        at_a += ya * load[y]
        at_b += yb * load[y]
    if len(covariance):
        if x >= 0:
            square_a += xa * (2.0 * overlap[a, x] + xa * own[x])
            square_b += xb * (2.0 * overlap[b, x] + xb * own[x])
        if y >= 0:
            square_a += ya * (2.0 * overlap[a, y] + ya * own[y])
            square_b += yb * (2.0 * overlap[b, y] + yb * own[y])
        if x >= 0 and y >= 0:
            square_a += 2.0 * xa * ya * covariance[x, y]
            square_b += 2.0 * xb * yb * covariance[x, y]
    largest = max(at_a, at_b)
    for k in range(3):
        g = highest[k]
        if g >= 0 and g != a and g != b:
            largest = max(largest, gpu_load[g])
            break
    cap, margin = prices.cap, prices.margin
    excess = sums[0]
    if prices.excess != 0.0 and cap < np.inf:
        excess += _above(at_a, square_a, cap, margin) - _above(gpu_load[a], variance[a], cap, margin)
        excess += _above(at_b, square_b, cap, margin) - _above(gpu_load[b], variance[b], cap, margin)
    cost: float = prices.largest * largest + prices.excess * excess
    if varies and prices.spread != 0.0:
        spread = sums[1] + square_a - variance[a] + square_b - variance[b]
        cost += prices.spread * max(np.sqrt(max(spread, 0.0) / len(gpu_load)) - prices.spread_free, 0.0)
    return cost


@numba.njit(nogil=True, cache=True)
def home_variance_change(
    x: int, y: int, bx: Floats, by: Floats, home_overlap: Floats, moments: Floats, by_homes: Floats
) -> None:
    """Fill `by_homes` (G,), the change of the variances if the homes' shares of experts x, y (-1: none) change."""
    G = len(by_homes)
    both = moments[x, y] if x >= 0 and y >= 0 else 0.0
    for g in range(G):
        added = 0.0
        for h in range(G):
            if x >= 0 and bx[g, h] != 0.0:
                added += bx[g, h] * (2.0 * (home_overlap[x, g, h] + both * by[g, h]) + bx[g, h] * moments[x, x])
            if y >= 0 and by[g, h] != 0.0:
                added += by[g, h] * (2.0 * home_overlap[y, g, h] + by[g, h] * moments[y, y])
        by_homes[g] = added / G


@numba.njit(nogil=True, cache=True)
def take_loads(x: int, dx: Floats, state: LayerState, model: LayerModel) -> None:
    """Book the change of expert x's relative shares."""
    covariance, own, overlap = model.covariance, model.own, state.overlap
    for g in range(len(dx)):
        d = dx[g]
        if d == 0.0:
            continue
        state.gpu_load[g] += d * model.load[x]
        if len(covariance):
            state.variance[g] += d * (2.0 * overlap[g, x] + d * own[x])
            for e in range(len(covariance)):
                overlap[g, e] += d * covariance[x, e]


@numba.njit(nogil=True, cache=True)
def take_home_shares(x: int, change: Floats, moments: Floats, home_overlap: Floats, variance: Floats) -> None:
    """Book the change of what each home adds to expert x's relative shares, ``change[g, h]``."""
    G = len(variance)
    for g in range(G):
        added = 0.0
        for h in range(G):
            d = change[g, h]
            added += d * (2.0 * home_overlap[x, g, h] + d * moments[x, x])
        variance[g] += added / G
    for e in range(len(moments)):
        moment = moments[x, e]
        if moment == 0.0:
            continue
        for g in range(G):
            for h in range(G):
                home_overlap[e, g, h] += moment * change[g, h]
