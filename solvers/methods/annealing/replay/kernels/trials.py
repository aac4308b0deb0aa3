"""Annealing on whole tokens: exchanged and new replicas in one layer, priced by sets of tokens."""

from __future__ import annotations

import numba
import numpy as np

from placement.loads.kernels.homes import add_home_shares
from solvers.methods.annealing.replay.kernels.bits import exchange_change, in_common
from solvers.methods.annealing.replay.kernels.loads import (
    add_shares,
    exchange_cost,
    home_variance_change,
    load_cost,
    sum_up,
    take_home_shares,
    take_loads,
)
from solvers.methods.annealing.replay.kernels.rules import item_alike, keeps_tokens, most_active
from solvers.methods.annealing.replay.kernels.serving import (
    HEAD,
    ONE,
    OTHER,
    START,
    keep,
    move_item,
    serve,
    turn,
    turn_back,
    turn_change,
)
from solvers.methods.annealing.replay.kernels.state import Draws, LayerModel, LayerState, Loads, edit_replicas
from solvers.searching.kernels.random import State, next_below, next_unit
from solvers.survival.rule import try_exchange, undo_exchange

__all__ = ["anneal_layer"]

# Standard errors by which the first tokens have to speak against a trial: one in a thousand is refused wrongly.
DOUBT = 3.0


@numba.njit(nogil=True, cache=True)
def anneal_layer(
    state: LayerState, model: LayerModel, trials: int, temperature: float, hopeless: float, draws: Draws, rng: State
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
        Trials whose loads alone cost this much more than the temperature lets pass are not priced further.
    draws : Draws

    Returns
    -------
    float
        Change of the objective over the accepted trials.
    """
    # By name and by array: handing on the whole tuples costs more than most trials.
    local, alike, reach = draws
    expert_of, gpu_of, item_on = state.expert_of, state.gpu_of, state.item_on
    replicas, counts, item_at = state.replicas, state.counts, state.item_at
    bits, gpus, nodes, part = state.bits, state.gpus, state.nodes, state.part
    gpu_load, variance, value, sums, highest = state.gpu_load, state.variance, state.value, state.sums, state.highest
    moments, home_overlap, bx, by = model.moments, state.home_overlap, state.by_home[0], state.by_home[1]
    homes_count = len(moments) > 0
    varies = homes_count or len(model.covariance) > 0
    by_homes = np.zeros(len(gpu_load))
    lock, allowed, usable, split, prices = model.lock, model.allowed, model.usable, model.split, model.prices
    node_of_gpu, fair, policy = split.node_of_gpu, split.fair, split.policy
    loads = Loads(model.load, model.covariance, model.own, varies, gpu_load, state.overlap, variance)
    batch, most, member, order, rank = model.batch, model.most, model.member, model.order, model.rank
    scale, activated_weight, dx, dy = model.scale, model.activated_weight, state.share[0], state.share[1]
    W, alive = bits.shape[1], state.alive
    head = HEAD if batch == 0 and temperature >= 0.0 and W > 2 * HEAD else W
    S, E, C, G = len(expert_of), len(counts), item_on.shape[1], len(gpu_load)
    by_node = len(nodes.planes) > 0
    first = np.zeros(node_of_gpu[G - 1] + 2, np.int64)  # GPU of each node, and the end
    for g in range(G):
        first[node_of_gpu[g] + 1] = g + 1
    if len(first) == 2:
        local = 0
    used_slots = (expert_of >= 0).sum()
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
            if local and next_below(rng, 16) < local:
                b = first[node_of_gpu[a]]
                b += next_below(rng, first[node_of_gpu[a] + 1] - b)
                j = item_on[b, next_below(rng, C)]
            elif x >= 0 and next_below(rng, 16) < alike:
                j = item_alike(i, x, reach, order, rank, replicas, counts, item_at, rng)
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
        if alive.least and not try_exchange(x, y, a, b, alive):
            continue
        tried += 1
        own = (
            j >= 0
            and (x < 0 or keeps_tokens(x, a, b, replicas, counts[x], node_of_gpu, policy))
            and (y < 0 or keeps_tokens(y, b, a, replicas, counts[y], node_of_gpu, policy))
        )
        # What is drawn first need not be priced to the end.
        limit = -temperature * np.log(max(next_unit(rng), 1e-300)) if temperature > 0.0 else 0.0
        # An expert with a single replica before and after goes where it goes, whatever the homes.
        turns = homes_count and (j < 0 or (x >= 0 and counts[x] > 1) or (y >= 0 and counts[y] > 1))
        item = j if j >= 0 else i
        edited = False
        if own and not turns:
            cost = exchange_cost(x, y, a, b, part[i], part[j], fair, loads, prices, sums, highest)
        else:
            dx[:] = 0.0
            dy[:] = 0.0
            by_homes[:] = 0.0
            if turns:
                bx[:] = 0.0
                by[:] = 0.0
                if x >= 0:
                    add_home_shares(replicas[x], counts[x], -1.0, policy, node_of_gpu, fair, bx)
                if y >= 0:
                    add_home_shares(replicas[y], counts[y], -1.0, policy, node_of_gpu, fair, by)
            edited = True
            if x >= 0:
                add_shares(x, -1.0, dx, replicas, counts, split)
                edit_replicas(x, i, a, b, replicas, counts, item_at)
                add_shares(x, 1.0, dx, replicas, counts, split)
            if y >= 0:
                add_shares(y, -1.0, dy, replicas, counts, split)
                edit_replicas(y, item, b, a, replicas, counts, item_at)
                add_shares(y, 1.0, dy, replicas, counts, split)
            if turns:
                if x >= 0:
                    add_home_shares(replicas[x], counts[x], 1.0, policy, node_of_gpu, fair, bx)
                if y >= 0:
                    add_home_shares(replicas[y], counts[y], 1.0, policy, node_of_gpu, fair, by)
                home_variance_change(x, y, bx, by, home_overlap, moments, by_homes)
            cost = load_cost(x, y, dx, dy, by_homes, loads, prices)
        delta = cost - value[0]
        priced = temperature < 0.0 or delta <= hopeless + limit
        activated = value[1]
        traffic = 0.0
        # The first words tell most trials that fail; the rest is looked at where they leave it open. Tokens of both
        # experts are told only by turning these: what they save at most is counted first.
        begin, end = START, min(head, W)
        least, squares, both = 0.0, 0.0, 0.0
        while priced and begin < W:
            if own:
                n, m = node_of_gpu[a], node_of_gpu[b]
                change, square = exchange_change(
                    bits[i], bits[j], gpus.zero[a], gpus.zero[b], gpus.one[a], gpus.one[b], gpus.value, begin, end
                )
                least += change
                squares += square
                if by_node and n != m:
                    change, square = exchange_change(
                        bits[i],
                        bits[j],
                        nodes.zero[n],
                        nodes.zero[m],
                        nodes.one[n],
                        nodes.one[m],
                        nodes.value,
                        begin,
                        end,
                    )
                    least += change
                    squares += square
            else:
                if x >= 0:
                    serve(x, ONE, begin, end, state, model)
                    change, square = turn_change(x, ONE, i, a, b, member[y], begin, end, state, node_of_gpu)
                    least += change
                    squares += square
                if y >= 0:
                    serve(y, OTHER, begin, end, state, model)
                    change, square = turn_change(y, OTHER, item, b, a, member[x], begin, end, state, node_of_gpu)
                    least += change
                    squares += square
                if x >= 0 and y >= 0:
                    both += 2.0 * model.most_saved * in_common(member[x], member[y], begin, end)
            if batch == 0 and temperature >= 0.0:
                doubt = 0.0 if end == W else DOUBT * np.sqrt(squares + model.most_saved * model.most_saved)
                priced = delta + scale * W / end * (least - both - doubt) <= limit
            begin, end = end, W
        if priced and own:
            traffic = least
            if batch:
                move_item(i, j, a, b, state, model)
                activated = most_active(state.active_on)
        if priced and not own:
            if x >= 0:
                traffic += turn(x, ONE, i, a, b, state, model)
            if y >= 0:
                traffic += turn(y, OTHER, item, b, a, state, model)
            if batch:
                activated = most_active(state.active_on)
        delta += scale * traffic + activated_weight * (activated - value[1])
        if not (priced and temperature >= 0.0 and delta <= limit):
            if priced and own and batch:
                move_item(j, i, a, b, state, model)
            elif priced and not own:
                if y >= 0:
                    turn_back(y, OTHER, item, b, a, state, model)
                if x >= 0:
                    turn_back(x, ONE, i, a, b, state, model)
            if edited:
                if y >= 0:
                    edit_replicas(y, item, a, b, replicas, counts, item_at)
                if x >= 0:
                    edit_replicas(x, i, b, a, replicas, counts, item_at)
            if alive.least:
                undo_exchange(x, y, a, b, alive)
            if temperature < 0.0:
                total += abs(scale * traffic)
            continue
        if not edited:
            dx[:] = 0.0
            dy[:] = 0.0
            if x >= 0:
                dx[a], dx[b] = -part[i] / fair[a], part[i] / fair[b]
                edit_replicas(x, i, a, b, replicas, counts, item_at)
            if y >= 0:
                dy[a], dy[b] = part[j] / fair[a], -part[j] / fair[b]
                edit_replicas(y, j, b, a, replicas, counts, item_at)
        if own:
            if not batch:
                move_item(i, j, a, b, state, model)
        else:
            if j < 0 and y < 0:
                bits[i] = np.uint64(0)
                state.active[i] = np.uint64(0)
                part[i] = 0.0
            if x >= 0:
                keep(x, ONE, state, model)
            if y >= 0:
                keep(y, OTHER, state, model)
        if j >= 0:
            gpu_of[i], gpu_of[j] = b, a
            for c in range(C):
                if item_on[a, c] == i:
                    item_on[a, c] = j
                    break
            for c in range(C):
                if item_on[b, c] == j:
                    item_on[b, c] = i
                    break
        else:
            expert_of[i] = y
            used_slots += (x < 0) - (y < 0)
        if x >= 0:
            take_loads(x, dx, state, model)
        if y >= 0:
            take_loads(y, dy, state, model)
        if turns:
            if x >= 0:
                take_home_shares(x, bx, moments, home_overlap, variance)
            if y >= 0:
                take_home_shares(y, by, moments, home_overlap, variance)
        sum_up(gpu_load, variance, prices, sums, highest)
        value[0], value[1] = cost, activated
        total += delta
    return total / max(tried, 1) if temperature < 0.0 else total
