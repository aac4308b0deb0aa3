"""Annealing on whole tokens: exchanged and new replicas in one layer, priced from tables or by rerouting."""

from __future__ import annotations

import numba
import numpy as np

from placement.loads.kernels.homes import add_home_shares
from placement.replay.kernels.replay import FAIR, SAME_NODE
from solvers.methods.annealing.replay.kernels.loads import (
    add_shares,
    home_variance_change,
    load_cost,
    take_home_shares,
    take_loads,
)
from solvers.methods.annealing.replay.kernels.routing import move_tokens, route
from solvers.methods.annealing.replay.kernels.state import (
    Floats,
    Ints,
    LayerModel,
    LayerState,
    Loads,
    Split,
    edit_replicas,
)
from solvers.searching.kernels.random import State, next_below, next_unit

__all__ = ["anneal_layer", "most_active"]


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
def _keeps_tokens(x: int, a: int, b: int, replicas: Ints, n: int, node: Ints, policy: int) -> bool:
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


@numba.njit(nogil=True, cache=True)
def _table_change(i: int, j: int, a: int, b: int, fresh: Floats, lone: Floats) -> float:
    """Return the change of the message cost if items i on place a and j on b (-1: none) change places."""
    change = 0.0
    if i >= 0:
        change += fresh[i, b] - lone[i, i]
    if j >= 0:
        change += fresh[j, a] - lone[j, j]
    if i >= 0 and j >= 0:
        change += lone[i, j] + lone[j, i]  # tokens of both go on using both places
    return change


@numba.njit(nogil=True, cache=True)
def anneal_layer(
    state: LayerState, model: LayerModel, trials: int, temperature: float, hopeless: float, rng: State
) -> float:
    """Run `trials` trials on one layer.

    Parameters
    ----------
    state : LayerState
        Changed in place.
    model : LayerModel
    temperature : float
        Negative: accept nothing and return the mean absolute change of the traffic, to find the scale of temperatures.
    hopeless : float
        Trials whose loads alone cost this much more than the temperature lets pass are not priced by rerouting.

    Returns
    -------
    float
        Change of the objective over the accepted trials.
    """
    # By name and by array: handing on the whole tuples costs more than most trials.
    expert_of, gpu_of, replicas, counts, item_at = (
        state.expert_of,
        state.gpu_of,
        state.replicas,
        state.counts,
        state.item_at,
    )
    fresh, lone, fresh_node, lone_node = state.fresh, state.lone, state.fresh_node, state.lone_node
    gpu_load, variance, value = state.gpu_load, state.variance, state.value
    moments, home_overlap, bx, by = model.moments, state.home_overlap, state.by_home[0], state.by_home[1]
    homes_count = len(moments) > 0
    varies = homes_count or len(model.covariance) > 0
    by_homes = np.zeros(len(gpu_load))
    node_of_gpu, lock, allowed, usable = model.node_of_gpu, model.lock, model.allowed, model.usable
    fair, policy, prices = model.fair, model.policy, model.prices
    loads = Loads(model.load, model.covariance, varies, gpu_load, state.overlap, variance)
    split = Split(policy, model.homes, node_of_gpu, fair, state.share[0])
    distinct, by_node, batch, most = model.distinct, model.by_node, model.batch, model.most
    scale, activated_weight, dx, dy = model.scale, model.activated_weight, state.share[1], state.share[2]
    S, E = len(expert_of), len(counts)
    least_loads = prices.largest * (1.0 - 1e-9)  # the largest load is at least the fair share
    used_slots = 0
    for i in range(S):
        used_slots += expert_of[i] >= 0
    fills_spare = S > E
    total = 0.0
    tried = 0
    for _ in range(trials):
        i = next_below(rng, S)
        a = gpu_of[i]
        x = expert_of[i]
        if not usable[i] or (x >= 0 and lock[x] == 2):
            continue
        j = -1
        if fills_spare and next_below(rng, 4) == 0:
            # Turn a spare replica, or an empty slot, into a replica of another expert, or a spare replica into an empty
            # slot.
            y = next_below(rng, E + 1) - 1
            b = -1
            if x == y or (x >= 0 and counts[x] < 2) or (x < 0 and used_slots >= most):
                continue
            if y >= 0 and (item_at[y, a] >= 0 or lock[y] > 0 or not allowed[y, a]):
                continue
        else:
            j = next_below(rng, S)
            b = gpu_of[j]
            y = expert_of[j]
            if a == b or x == y or not usable[j] or (y >= 0 and lock[y] == 2):
                continue
            if (x >= 0 and (item_at[x, b] >= 0 or not allowed[x, b])) or (
                y >= 0 and (item_at[y, a] >= 0 or not allowed[y, a])
            ):
                continue
            if ((x >= 0 and lock[x]) or (y >= 0 and lock[y])) and node_of_gpu[a] != node_of_gpu[b]:
                continue
        tried += 1
        by_table = (
            j >= 0
            and batch == 0
            and (x < 0 or _keeps_tokens(x, a, b, replicas, counts[x], node_of_gpu, policy))
            and (y < 0 or _keeps_tokens(y, b, a, replicas, counts[y], node_of_gpu, policy))
        )
        # What is drawn first need not be priced to the end.
        limit = -temperature * np.log(max(next_unit(rng), 1e-300)) if temperature > 0.0 else 0.0
        traffic = 0.0
        if by_table:
            p, q = i if x >= 0 else -1, j if y >= 0 else -1
            if not distinct:
                traffic = (fresh[p, b] - fresh[p, a] if x >= 0 else 0.0) + (
                    fresh[q, a] - fresh[q, b] if y >= 0 else 0.0
                )
            else:
                traffic = _table_change(p, q, a, b, fresh, lone)
                if by_node and node_of_gpu[a] != node_of_gpu[b]:
                    traffic += _table_change(p, q, node_of_gpu[a], node_of_gpu[b], fresh_node, lone_node)
            if temperature < 0.0:
                total += abs(scale * traffic)
                continue
            if scale * traffic + least_loads - value[0] > limit:
                continue
        dx[:] = 0.0
        dy[:] = 0.0
        # An expert with a single replica before and after goes where it goes, whatever the homes.
        turns = homes_count and (j < 0 or (x >= 0 and counts[x] > 1) or (y >= 0 and counts[y] > 1))
        if turns:
            bx[:] = 0.0
            by[:] = 0.0
            if x >= 0:
                add_home_shares(replicas[x], counts[x], -1.0, policy, node_of_gpu, fair, bx)
            if y >= 0:
                add_home_shares(replicas[y], counts[y], -1.0, policy, node_of_gpu, fair, by)
        if x >= 0:
            add_shares(x, -1.0, dx, replicas, counts, split)
            edit_replicas(x, i, a, b, replicas, counts, item_at)
            add_shares(x, 1.0, dx, replicas, counts, split)
        if y >= 0:
            add_shares(y, -1.0, dy, replicas, counts, split)
            edit_replicas(y, j if j >= 0 else i, b, a, replicas, counts, item_at)
            add_shares(y, 1.0, dy, replicas, counts, split)
        if turns:
            if x >= 0:
                add_home_shares(replicas[x], counts[x], 1.0, policy, node_of_gpu, fair, bx)
            if y >= 0:
                add_home_shares(replicas[y], counts[y], 1.0, policy, node_of_gpu, fair, by)
            home_variance_change(x, y, bx, by, home_overlap, moments, by_homes)
        else:
            by_homes[:] = 0.0
        cost = load_cost(x, y, dx, dy, by_homes, loads, prices)
        delta = cost - value[0]
        activated = value[1]
        priced = by_table or temperature < 0.0 or delta <= hopeless + limit
        if priced and not by_table:
            if x >= 0:
                traffic += route(x, state, model)
            if y >= 0:
                traffic += route(y, state, model)
            if batch:
                activated = most_active(state.active_on)
        delta += scale * traffic + activated_weight * (activated - value[1])
        accept = priced and temperature >= 0.0 and delta <= limit
        if not accept or not by_table:
            # Back to where the tables are.
            item = j if j >= 0 else i
            if y >= 0:
                edit_replicas(y, item, a, b, replicas, counts, item_at)
            if x >= 0:
                edit_replicas(x, i, b, a, replicas, counts, item_at)
            if priced and not by_table:
                if y >= 0:
                    route(y, state, model)
                if x >= 0:
                    route(x, state, model)
            if accept:
                if x >= 0:
                    edit_replicas(x, i, a, b, replicas, counts, item_at)
                if y >= 0:
                    edit_replicas(y, item, b, a, replicas, counts, item_at)
        if not accept:
            if temperature < 0.0:
                total += abs(scale * traffic)
            continue
        if j >= 0:
            gpu_of[i] = b
            gpu_of[j] = a
        else:
            expert_of[i] = y
            used_slots += (x < 0) - (y < 0)
        if x >= 0:
            move_tokens(x, state, model)
            take_loads(x, dx, state, model)
        if y >= 0:
            move_tokens(y, state, model)
            take_loads(y, dy, state, model)
        if turns:
            if x >= 0:
                take_home_shares(x, bx, moments, home_overlap, variance)
            if y >= 0:
                take_home_shares(y, by, moments, home_overlap, variance)
        value[0] = cost
        value[1] = activated
        total += delta
    return total / max(tried, 1) if temperature < 0.0 else total
