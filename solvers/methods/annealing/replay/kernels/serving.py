"""One layer's tokens under dispatch: which replica serves each of them, and what follows where an expert's change."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from placement.loads.kernels.homes import add_home_shares
from placement.loads.policies import FAIR, SAME_NODE
from placement.replay.kernels.choosing import fair_pick
from solvers.methods.annealing.replay.kernels.bits import shift, shift_change
from solvers.methods.annealing.replay.kernels.loads import expert_share, take_home_shares
from solvers.methods.annealing.replay.kernels.state import Ints, LayerModel, LayerState, Level, Words
from traces.support.copying import copy_row

__all__ = [
    "HEAD",
    "ONE",
    "OTHER",
    "RESIDUES",
    "START",
    "gather",
    "keep",
    "move_item",
    "serve",
    "serve_all",
    "turn",
    "turn_back",
    "turn_change",
]

# A multiple of all numbers up to 16: a hash modulo this tells the one modulo each of them.
RESIDUES = 720_720
KNOWN = 16
# No literals: for each of them numba compiles what takes it once more.
NONE: Any = np.int64(-1)
START: Any = np.int64(0)
ONE: Any = np.int64(0)  # room for the tokens of the one expert of a trial
OTHER: Any = np.int64(1)  # and for those of the other
HEAD = 24  # words of tokens that a trial is priced on first; chosen by trial


@numba.njit(nogil=True, cache=True)
def gather(
    ids: Ints, rows: Ints, layer: int, start: Ints, middle: Ints, token: Ints, residue: Ints, member: Words
) -> None:
    """Sort a layer's assignments by expert, and each expert's by token.

    Parameters
    ----------
    ids : (n, K) integers
    rows : (n,) int64
    layer : int
    start : (E+1,) int64
        Filled, as all that follow: where each expert's assignments start.
    middle : (E,) int64
        Where they leave the first `HEAD` words of tokens.
    token, residue : (assignments,) int64
        The residue is that of the hash that `placement.replay` picks replicas by, modulo `RESIDUES`.
    member : (E+1, W) uint64
        Tokens of each expert, and none.
    """
    for t in range(ids.shape[0]):
        for k in range(ids.shape[1]):
            if ids[t, k] >= 0:
                start[ids[t, k] + 1] += 1
    for before in range(len(start) - 1):
        start[before + 1] += start[before]
    at = start[:-1].copy()
    copy_row(at, middle)
    for t in range(ids.shape[0]):
        for k in range(ids.shape[1]):
            e = np.int64(ids[t, k])
            if e < 0:
                continue
            token[at[e]] = t
            residue[at[e]] = fair_pick(rows[t], layer, int(e), RESIDUES)
            at[e] += 1
            if t < 64 * HEAD:
                middle[e] = at[e]
            member[e, t >> 6] |= np.uint64(1) << np.uint64(t & 63)


@numba.njit(nogil=True, cache=True)
def serve(e: int, room: int, begin: int, end: int, state: LayerState, model: LayerModel) -> None:
    """Fill ``served[room, c]`` with the tokens that replica c of expert e serves, as `placement.replay` chooses.

    Only the words from `begin` to `end`, which are the first `HEAD` words, those after them, or all.
    """
    served, active = state.served[room], state.served_active[room]
    gpus, count = state.replicas[e], state.counts[e]
    token, residue, home, node_of_gpu = model.token, model.residue, model.home, model.split.node_of_gpu
    policy, batch = model.split.policy, model.batch
    on_gpu, first, near = state.choice[0], state.choice[1], state.near
    for c in range(count):
        served[c, begin:end] = np.uint64(0)
        if begin == 0:
            active[c] = np.uint64(0)
    if policy != FAIR:
        for c in range(count):
            on_gpu[gpus[c]] = c
            node = node_of_gpu[gpus[c]]
            if near[node] == 0:
                first[node] = c
            near[node] += 1
    whole = end == served.shape[1]
    for n in range(model.middle[e] if begin else model.start[e], model.start[e + 1] if whole else model.middle[e]):
        t = token[n]
        c = 0
        if count > 1:
            h = home[t]
            begin, among = 0, count
            own = -1
            if policy != FAIR:
                own = on_gpu[h]
                if policy == SAME_NODE and near[node_of_gpu[h]] > 0:
                    begin, among = first[node_of_gpu[h]], near[node_of_gpu[h]]
            if own >= 0:
                c = own
            elif among == 1:
                c = begin
            elif among <= KNOWN:
                c = begin + residue[n] % among
            else:
                c = begin + fair_pick(model.rows[t], model.layer, e, among)
        served[c, t >> 6] |= np.uint64(1) << np.uint64(t & 63)
        if batch:
            active[c, t // batch] = np.uint64(1)
    if policy != FAIR:
        for c in range(count):
            on_gpu[gpus[c]] = -1
            near[node_of_gpu[gpus[c]]] = 0


@numba.njit(nogil=True, cache=True)
def _assign(g: int, less: Words, more: Words, gpus: Level, nodes: Level, node_of_gpu: Ints, distinct: bool) -> float:
    """Take the tokens `less` from GPU g and give it `more`; return the change of the message cost."""
    change = shift(less, more, gpus.planes[g], gpus.zero[g], gpus.one[g], gpus.mask[g], gpus.value, distinct)
    if len(nodes.planes):
        n = node_of_gpu[g]
        change += shift(less, more, nodes.planes[n], nodes.zero[n], nodes.one[n], nodes.mask[n], nodes.value, distinct)
    return change


@numba.njit(nogil=True, cache=True)
def _activate(g: int, less: Words, more: Words, active_on: Ints) -> None:
    for b in range(len(less)):
        active_on[b, g] += np.int64(more[b]) - np.int64(less[b])


@numba.njit(nogil=True, cache=True)
def move_item(i: int, j: int, a: int, b: int, state: LayerState, model: LayerModel) -> None:
    """Let items i on GPU a and j on b, whose tokens stay their own, change places."""
    bits, active = state.bits, state.active
    _assign(a, bits[i], bits[j], state.gpus, state.nodes, model.split.node_of_gpu, model.distinct)
    _assign(b, bits[j], bits[i], state.gpus, state.nodes, model.split.node_of_gpu, model.distinct)
    _activate(a, active[i], active[j], state.active_on)
    _activate(b, active[j], active[i], state.active_on)


@numba.njit(nogil=True, cache=True)
def turn_change(
    e: int,
    room: int,
    item: int,
    a: int,
    b: int,
    without: Words,
    begin: int,
    end: int,
    state: LayerState,
    node: Ints,
) -> tuple[float, float]:
    """Return what `turn` would, but of the tokens that are not in `without` only, and change nothing.

    The words are those from `begin` to `end`; what is returned, see `exchange_change`.
    """
    bits, served, gpus, nodes = state.bits, state.served[room], state.gpus, state.nodes
    empty, count, replicas = len(bits) - 1, state.counts[e], state.replicas[e]
    change, squares = 0.0, 0.0
    if a >= 0:
        more, square = shift_change(bits[item], bits[empty], without, gpus.zero[a], gpus.one[a], gpus.value, begin, end)
        change += more
        squares += square
    for c in range(count):
        g = replicas[c]
        before = empty if g == b else state.item_at[e, g]
        more, square = shift_change(bits[before], served[c], without, gpus.zero[g], gpus.one[g], gpus.value, begin, end)
        change += more
        squares += square
    if not len(nodes.planes):
        return change, squares
    old, new = state.room[0], state.room[1]
    left = a
    c = 0
    while c < count or left >= 0:
        n = node[replicas[c]] if c < count else node[left]
        old[begin:end] = np.uint64(0)
        new[begin:end] = np.uint64(0)
        if left >= 0 and node[left] == n:
            copy_row(bits[item, begin:end], old[begin:end])
            left = -1
        while c < count and node[replicas[c]] == n:
            g = replicas[c]
            before = empty if g == b else state.item_at[e, g]
            for w in range(begin, end):
                old[w] |= bits[before, w]
                new[w] |= served[c, w]
            c += 1
        more, square = shift_change(old, new, without, nodes.zero[n], nodes.one[n], nodes.value, begin, end)
        change += more
        squares += square
    return change, squares


@numba.njit(nogil=True, cache=True)
def turn(e: int, room: int, item: int, a: int, b: int, state: LayerState, model: LayerModel) -> float:
    """Send the tokens of expert e to the replicas it has now; return the change of the message cost.

    Places follow, `bits` don't: `turn_back` undoes it, `keep` completes it.

    Parameters
    ----------
    e, room : int
    item, a, b : int
        What has changed: this replica went from GPU a to b (-1: none).
    """
    bits, active, served, served_active = state.bits, state.active, state.served[room], state.served_active[room]
    empty = len(bits) - 1
    change = 0.0
    if a >= 0:
        change += _assign(a, bits[item], bits[empty], state.gpus, state.nodes, model.split.node_of_gpu, model.distinct)
        _activate(a, active[item], active[empty], state.active_on)
    for c in range(state.counts[e]):
        g = state.replicas[e, c]
        before = empty if g == b else state.item_at[e, g]
        change += _assign(g, bits[before], served[c], state.gpus, state.nodes, model.split.node_of_gpu, model.distinct)
        _activate(g, active[before], served_active[c], state.active_on)
    return change


@numba.njit(nogil=True, cache=True)
def turn_back(e: int, room: int, item: int, a: int, b: int, state: LayerState, model: LayerModel) -> None:
    """Undo `turn`, before the replicas are what they were."""
    bits, active, served, served_active = state.bits, state.active, state.served[room], state.served_active[room]
    empty = len(bits) - 1
    for c in range(state.counts[e]):
        g = state.replicas[e, c]
        before = empty if g == b else state.item_at[e, g]
        _assign(g, served[c], bits[before], state.gpus, state.nodes, model.split.node_of_gpu, model.distinct)
        _activate(g, served_active[c], active[before], state.active_on)
    if a >= 0:
        _assign(a, bits[empty], bits[item], state.gpus, state.nodes, model.split.node_of_gpu, model.distinct)
        _activate(a, active[empty], active[item], state.active_on)


@numba.njit(nogil=True, cache=True)
def keep(e: int, room: int, state: LayerState, model: LayerModel) -> None:
    """Let the items of expert e have the tokens that `serve` gave them, and their expected shares."""
    share = model.split.share
    homes = model.split.homes
    expert_share(state.replicas[e], state.counts[e], homes[min(e, len(homes) - 1)], model.split, share)
    for c in range(state.counts[e]):
        item = state.item_at[e, state.replicas[e, c]]
        copy_row(state.served[room, c], state.bits[item])
        copy_row(state.served_active[room, c], state.active[item])
        state.part[item] = share[c]


@numba.njit(nogil=True, cache=True)
def serve_all(state: LayerState, model: LayerModel) -> float:
    """Serve every token and load every GPU of a fresh state; return the message cost."""
    covariance, split = model.covariance, model.split
    cost = 0.0
    for e in range(len(state.counts)):
        serve(e, ONE, START, state.bits.shape[1], state, model)
        cost += turn(e, ONE, NONE, NONE, NONE, state, model)
        keep(e, ONE, state, model)
        for c in range(state.counts[e]):
            g = state.replicas[e, c]
            part = split.share[c] / split.fair[g]
            state.gpu_load[g] += part * model.load[e]
            for f in range(len(covariance)):
                state.overlap[g, f] += part * covariance[e, f]
    for e in range(len(covariance)):
        for c in range(state.counts[e]):
            g = state.replicas[e, c]
            state.variance[g] += state.part[state.item_at[e, g]] / split.fair[g] * state.overlap[g, e]
    moments, change = model.moments, state.by_home[0]
    for x in range(len(moments)):
        if state.counts[x] < 2:
            continue
        change[:] = 0.0
        add_home_shares(state.replicas[x], state.counts[x], 1.0, split.policy, split.node_of_gpu, split.fair, change)
        take_home_shares(x, change, moments, state.home_overlap, state.variance)
    return cost
