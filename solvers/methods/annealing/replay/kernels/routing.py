"""One layer's tokens under dispatch: which replica serves each assignment, and what moving a replica would cost.

A token pays once for every GPU and node that serves it (fan-out). Tables keep, for each replica, what it would save
where it is alone and what it would cost where its tokens don't go yet, so that moving a replica whose tokens stay its
own is priced without looking at a token. The same tables are called gain caches in hypergraph partitioning.

References
----------
L. Gottesbüren et al., "Scalable Shared-Memory Hypergraph Partitioning", ALENEX 2021, section 4: gains from benefit and
penalty terms. Exact gains of swaps (the table over pairs) and tokens with homes are ours.
"""

from __future__ import annotations

import numba
import numpy as np

from placement.loads.kernels.homes import add_home_shares
from placement.replay.kernels.replay import choose_replica
from solvers.methods.annealing.replay.kernels.loads import expert_share, take_home_shares
from solvers.methods.annealing.replay.kernels.state import Floats, Ints, LayerModel, LayerState

__all__ = ["move_tokens", "route", "route_all"]


@numba.njit(nogil=True, cache=True)
def _activate(b: int, e: int, g: int, step: int, active: Ints, active_on: Ints) -> None:
    before = active[b, e, g]
    active[b, e, g] = before + step
    if before == 0:
        active_on[b, g] += 1
    elif before + step == 0:
        active_on[b, g] -= 1


@numba.njit(nogil=True, cache=True)
def route(e: int, state: LayerState, model: LayerModel) -> float:
    """Send the tokens of expert e to the replicas it has now; return the change of the message cost.

    Counters follow, tables do not: to be undone after a look, or redone by `move_tokens`.
    """
    at, on_gpu, on_node = state.at, state.on_gpu, state.on_node
    token, place, home, node_of_gpu = model.token, model.place, model.home, model.node_of_gpu
    gpu_cost, node_cost, distinct, by_node = model.gpu_cost, model.node_cost, model.distinct, model.by_node
    rows, policy, layer, batch = model.rows, model.policy, model.layer, model.batch
    anchor = np.empty(1, np.int64)
    gpus, count = state.replicas[e], state.counts[e]
    new = int(gpus[0])
    change = 0.0
    for i in range(model.start[e], model.start[e + 1]):
        t, k = token[i], place[i]
        h = home[t]
        if count > 1:
            anchor[0] = h
            new = choose_replica(gpus, count, anchor, 1, policy, node_of_gpu, rows[t], layer, e)
        old = at[t, k]
        if new == old:
            continue
        at[t, k] = new
        if batch:
            _activate(t // batch, e, old, -1, state.active, state.active_on)
            _activate(t // batch, e, new, 1, state.active, state.active_on)
        if not distinct:
            change += gpu_cost[h, new] - gpu_cost[h, old]
            continue
        on_gpu[t, old] -= 1
        if on_gpu[t, old] == 0:
            change -= gpu_cost[h, old]
        if on_gpu[t, new] == 0:
            change += gpu_cost[h, new]
        on_gpu[t, new] += 1
        a, b = node_of_gpu[old], node_of_gpu[new]
        if by_node and a != b:
            on_node[t, a] -= 1
            if on_node[t, a] == 0:
                change -= node_cost[h, a]
            if on_node[t, b] == 0:
                change += node_cost[h, b]
            on_node[t, b] += 1
    return change


@numba.njit(nogil=True, cache=True, inline="always")
def _add_lone(t: int, i: int, amount: float, used: Ints, lone: Floats) -> None:
    """Item i is alone on a place of token t (or no more)."""
    for k in range(used.shape[1]):
        j = used[t, k]
        if j >= 0:
            lone[i, j] += amount


@numba.njit(nogil=True, cache=True)
def _leave(
    t: int, k: int, g: int, cost: float, places: Ints, used: Ints, count: Ints, fresh: Floats, lone: Floats
) -> None:
    """Take assignment k of token t from place g (a GPU or a node); places (K,) are those of its assignments."""
    count[t, g] -= 1
    if count[t, g] == 0:
        _add_lone(t, used[t, k], -cost, used, lone)
        for m in range(used.shape[1]):
            j = used[t, m]
            if j >= 0:
                fresh[j, g] += cost
    elif count[t, g] == 1:
        for m in range(used.shape[1]):
            if m != k and places[m] == g:
                _add_lone(t, used[t, m], cost, used, lone)
                break


@numba.njit(nogil=True, cache=True)
def _arrive(
    t: int, k: int, g: int, cost: float, places: Ints, used: Ints, count: Ints, fresh: Floats, lone: Floats
) -> None:
    """Put assignment k of token t on place g."""
    if count[t, g] == 0:
        _add_lone(t, used[t, k], cost, used, lone)
        for m in range(used.shape[1]):
            j = used[t, m]
            if j >= 0:
                fresh[j, g] -= cost
    elif count[t, g] == 1:
        for m in range(used.shape[1]):
            if m != k and places[m] == g:
                _add_lone(t, used[t, m], -cost, used, lone)
                break
    count[t, g] += 1


@numba.njit(nogil=True, cache=True)
def _belong(
    t: int,
    k: int,
    i: int,
    sign: float,
    cost: Floats,
    places: Ints,
    used: Ints,
    count: Ints,
    fresh: Floats,
    lone: Floats,
) -> None:
    """Give assignment k of token t, which is nowhere, to item i (or take it away)."""
    for g in range(count.shape[1]):
        if count[t, g] == 0:
            fresh[i, g] += sign * cost[g]
    for m in range(used.shape[1]):
        if m != k and used[t, m] >= 0 and count[t, places[m]] == 1:
            lone[used[t, m], i] += sign * cost[places[m]]


@numba.njit(nogil=True, cache=True)
def move_tokens(e: int, state: LayerState, model: LayerModel) -> None:
    """Send the tokens of expert e to the replicas it has now; counters and tables follow."""
    used, at, on_gpu, on_node = state.used, state.at, state.on_gpu, state.on_node
    fresh, lone, fresh_node, lone_node = state.fresh, state.lone, state.fresh_node, state.lone_node
    token, place, home, node_of_gpu = model.token, model.place, model.home, model.node_of_gpu
    gpu_cost, node_cost, distinct, by_node = model.gpu_cost, model.node_cost, model.distinct, model.by_node
    rows, policy, layer, batch = model.rows, model.policy, model.layer, model.batch
    K = used.shape[1]
    anchor = np.empty(1, np.int64)
    nodes = np.full(K, -1, np.int64)
    gpus, count = state.replicas[e], state.counts[e]
    new = int(gpus[0])
    for n in range(model.start[e], model.start[e + 1]):
        t, k = token[n], place[n]
        h = home[t]
        if count > 1:
            anchor[0] = h
            new = choose_replica(gpus, count, anchor, 1, policy, node_of_gpu, rows[t], layer, e)
        old = at[t, k]
        if new == old:
            continue
        before, item = used[t, k], state.item_at[e, new]
        if batch:
            _activate(t // batch, e, old, -1, state.active, state.active_on)
            _activate(t // batch, e, new, 1, state.active, state.active_on)
        if not distinct:
            if item != before:
                for g in range(fresh.shape[1]):
                    fresh[before, g] -= gpu_cost[h, g]
                    fresh[item, g] += gpu_cost[h, g]
            used[t, k] = item
            at[t, k] = new
            continue
        a, b = node_of_gpu[old], node_of_gpu[new]
        _leave(t, k, old, gpu_cost[h, old], at[t], used, on_gpu, fresh, lone)
        if by_node:
            for m in range(K):
                nodes[m] = node_of_gpu[at[t, m]] if used[t, m] >= 0 else -1
            if a != b or item != before:
                _leave(t, k, a, node_cost[h, a], nodes, used, on_node, fresh_node, lone_node)
        if item != before:
            _belong(t, k, before, -1.0, gpu_cost[h], at[t], used, on_gpu, fresh, lone)
            _belong(t, k, item, 1.0, gpu_cost[h], at[t], used, on_gpu, fresh, lone)
            if by_node:
                _belong(t, k, before, -1.0, node_cost[h], nodes, used, on_node, fresh_node, lone_node)
                _belong(t, k, item, 1.0, node_cost[h], nodes, used, on_node, fresh_node, lone_node)
            used[t, k] = item
        _arrive(t, k, new, gpu_cost[h, new], at[t], used, on_gpu, fresh, lone)
        if by_node and (a != b or item != before):
            _arrive(t, k, b, node_cost[h, b], nodes, used, on_node, fresh_node, lone_node)
        at[t, k] = new


@numba.njit(nogil=True, cache=True)
def route_all(state: LayerState, model: LayerModel) -> float:
    """Route every token and load every GPU of a fresh state, tables included; return the message cost."""
    used, at, on_gpu, on_node = state.used, state.at, state.on_gpu, state.on_node
    token, place, home, node_of_gpu = model.token, model.place, model.home, model.node_of_gpu
    covariance, share = model.covariance, state.share[0]
    anchor = np.empty(1, np.int64)
    G, E = len(model.fair), len(state.counts)
    cost = 0.0
    for e in range(E):
        gpus, count = state.replicas[e], state.counts[e]
        expert_share(gpus, count, model.policy, model.homes[min(e, len(model.homes) - 1)], node_of_gpu, share)
        for c in range(count):
            g = gpus[c]
            part = share[c] / model.fair[g]
            state.gpu_load[g] += part * model.load[e]
            for f in range(len(covariance)):
                state.overlap[f, g] += part * covariance[f, e]
        for n in range(model.start[e], model.start[e + 1]):
            t, k = token[n], place[n]
            anchor[0] = home[t]
            g = choose_replica(gpus, count, anchor, 1, model.policy, node_of_gpu, model.rows[t], model.layer, e)
            at[t, k] = g
            used[t, k] = state.item_at[e, g]
            if on_gpu[t, g] == 0 or not model.distinct:
                cost += model.gpu_cost[home[t], g]
            if model.distinct:
                on_gpu[t, g] += 1
            if model.by_node:
                if on_node[t, node_of_gpu[g]] == 0:
                    cost += model.node_cost[home[t], node_of_gpu[g]]
                on_node[t, node_of_gpu[g]] += 1
            if model.batch:
                _activate(t // model.batch, e, g, 1, state.active, state.active_on)
    for e in range(len(covariance)):
        share[:] = 0.0
        expert_share(
            state.replicas[e],
            state.counts[e],
            model.policy,
            model.homes[min(e, len(model.homes) - 1)],
            node_of_gpu,
            share,
        )
        for c in range(state.counts[e]):
            g = state.replicas[e, c]
            state.variance[g] += share[c] / model.fair[g] * state.overlap[e, g]
    moments, change = model.moments, state.by_home[0]
    for x in range(len(moments)):
        if state.counts[x] < 2:
            continue
        change[:] = 0.0
        add_home_shares(state.replicas[x], state.counts[x], 1.0, model.policy, node_of_gpu, model.fair, change)
        take_home_shares(x, change, moments, state.home_overlap, state.variance)
    for t in range(len(used)):
        h = home[t]
        for k in range(used.shape[1]):
            i = used[t, k]
            if i < 0:
                continue
            for g in range(G):
                if on_gpu[t, g] == 0 or not model.distinct:
                    state.fresh[i, g] += model.gpu_cost[h, g]
            if not model.distinct:
                continue
            if on_gpu[t, at[t, k]] == 1:
                _add_lone(t, i, model.gpu_cost[h, at[t, k]], used, state.lone)
            if model.by_node:
                for m in range(on_node.shape[1]):
                    if on_node[t, m] == 0:
                        state.fresh_node[i, m] += model.node_cost[h, m]
                node = node_of_gpu[at[t, k]]
                if on_node[t, node] == 1:
                    _add_lone(t, i, model.node_cost[h, node], used, state.lone_node)
    return cost
