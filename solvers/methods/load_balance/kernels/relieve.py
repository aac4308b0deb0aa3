"""Relieving the busiest GPU of a layer, compiled: exchanges of replicas, and replicas of other experts in their place.

A *table* is one layer's map with a row of slots per GPU, (G, C); -1 is an empty slot. A replica carries an equal part
of its expert's load, its *mass*. ``scale[g]`` turns the load of GPU g into one relative to its fair share; 1 is
balanced.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["EPSILON", "largest_load", "relieve", "weigh"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Table = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

EPSILON = 1e-12  # a smaller relative gain is rounding


@numba.njit(nogil=True, cache=True)
def weigh(load: Floats, table: Table, replicas: Ints, mass: Floats, total: Floats) -> None:
    """Count the replicas of each expert, (E,); weigh each slot's replica, (G, C), and each GPU, (G,)."""
    gpus, per_gpu = table.shape
    replicas[:] = 0
    for g in range(gpus):
        for c in range(per_gpu):
            if table[g, c] >= 0:
                replicas[table[g, c]] += 1
    for g in range(gpus):
        total[g] = 0.0
        for c in range(per_gpu):
            mass[g, c] = load[table[g, c]] / replicas[table[g, c]] if table[g, c] >= 0 else 0.0
            total[g] += mass[g, c]


@numba.njit(nogil=True, cache=True)
def _order(table: Table, mass: Floats, g: int, room: int) -> None:
    """Sort the slots of a GPU, heaviest first; by insertion, as they are few and nearly sorted."""
    for c in range(1, room):
        expert, weight, at = table[g, c], mass[g, c], c
        while at > 0 and mass[g, at - 1] < weight:
            table[g, at], mass[g, at] = table[g, at - 1], mass[g, at - 1]
            at -= 1
        table[g, at], mass[g, at] = expert, weight


@numba.njit(nogil=True, cache=True)
def _largest(total: Floats, scale: Floats) -> float:
    """Return the largest of the GPUs' relative loads."""
    largest = 0.0
    for g in range(len(total)):
        largest = max(largest, total[g] * scale[g])
    return largest


@numba.njit(nogil=True, cache=True)
def _swap(
    table: Table,
    mass: Floats,
    total: Floats,
    scale: Floats,
    fair: Floats,
    holds: Bools,
    room: Ints,
    busiest: int,
    lightest: int,
) -> bool:
    """Exchange a replica on the busiest GPU with a lighter one elsewhere, so that the larger of both loads is least.

    Returns
    -------
    bool
        Whether there was an exchange that leaves both GPUs below the present largest load.
    """
    gpus = len(total)
    best = total[busiest] * scale[busiest] * (1 - EPSILON)
    least = total[busiest] - best * fair[busiest]
    mine = other = theirs = -1
    for turn in range(gpus):  # the lightest GPU first: after a good exchange with it, most others can't do better
        g = lightest + turn if lightest + turn < gpus else lightest + turn - gpus
        most = best * fair[g] - total[g]  # the step must lie between least and most
        if g == busiest or most <= least:
            continue
        start = 0  # rows are in descending order of mass, so what is too heavy for one replica is so for all after it
        for i in range(room[busiest]):
            given = mass[busiest, i]
            while start < room[g] and given - mass[g, start] <= least:
                start += 1
            if start == room[g] or given <= least:
                break
            if holds[table[busiest, i], g]:
                continue
            for j in range(start, room[g]):
                step = given - mass[g, j]
                if step >= most:
                    break
                if step > least and (table[g, j] < 0 or not holds[table[g, j], busiest]):
                    best = max((total[busiest] - step) * scale[busiest], (total[g] + step) * scale[g])
                    least = total[busiest] - best * fair[busiest]
                    most = best * fair[g] - total[g]
                    mine, other, theirs = i, g, j
    if other < 0:
        return False
    e, f = table[busiest, mine], table[other, theirs]
    mass_e, mass_f = mass[busiest, mine], mass[other, theirs]
    table[busiest, mine], table[other, theirs] = f, e
    mass[busiest, mine], mass[other, theirs] = mass_f, mass_e
    holds[e, busiest], holds[e, other] = False, True
    if f >= 0:
        holds[f, busiest], holds[f, other] = True, False
    total[busiest] += mass_f - mass_e
    total[other] += mass_e - mass_f
    _order(table, mass, busiest, room[busiest])
    _order(table, mass, other, room[other])
    return True


@numba.njit(nogil=True, cache=True)
def _with_one_less(
    table: Table, mass: Floats, total: Floats, scale: Floats, replicas: Ints, room: Ints
) -> tuple[Floats, Floats, Ints]:
    """Return what the GPUs of each expert would reach if another one lost its replica of it.

    Returns
    -------
    first, second : (E,) float64
        Largest and second largest; 0 where there is none.
    where : (E,) int64
        GPU of the largest; -1 where there is none.
    """
    first, second = np.zeros(len(replicas)), np.zeros(len(replicas))
    where = np.full(len(replicas), -1, np.int64)
    for g in range(len(total)):
        for c in range(room[g]):
            e = table[g, c]
            if e >= 0 and replicas[e] > 1:
                reached = (total[g] + mass[g, c] / (replicas[e] - 1)) * scale[g]
                if reached > first[e]:
                    first[e], second[e], where[e] = reached, first[e], g
                elif reached > second[e]:
                    second[e] = reached
    return first, second, where


@numba.njit(nogil=True, cache=True)
def _convert(
    load: Floats,
    table: Table,
    replicas: Ints,
    mass: Floats,
    total: Floats,
    scale: Floats,
    holds: Bools,
    room: Ints,
    busiest: int,
) -> bool:
    """Put another expert in a spare replica's or an empty slot's place, so that the largest load concerned is least.

    Either a further replica of an expert of the busiest GPU, elsewhere, or a lighter one (or none) on the busiest GPU.

    Returns
    -------
    bool
        Whether there was a change that leaves all GPUs it concerns below the present largest load.
    """
    gpus = len(total)
    best = total[busiest] * scale[busiest] * (1 - EPSILON)
    first, second, where = _with_one_less(table, mass, total, scale, replicas, room)
    expert = other = slot = -1
    for i in range(room[busiest]):
        e = table[busiest, i]
        if e < 0:
            continue
        rest = second[e] if where[e] == busiest else first[e]
        if replicas[e] > 1 and rest < best:  # give it up
            left = total[busiest] - mass[busiest, i]
            for f in range(-1, len(load)):
                if f >= 0 and holds[f, busiest]:
                    continue
                worst = max(rest, (left + (load[f] / (replicas[f] + 1) if f >= 0 else 0.0)) * scale[busiest])
                if worst < best:
                    best, expert, other, slot = worst, f, busiest, i
        share = load[e] / (replicas[e] + 1)
        relieved = total[busiest] - mass[busiest, i] + share
        if replicas[e] == gpus or relieved * scale[busiest] >= best:
            continue
        for g in range(gpus):  # give it a further replica on g, in place of f
            if holds[e, g]:
                continue
            for j in range(room[g]):
                f = table[g, j]
                worst = max(relieved * scale[busiest], (total[g] + share - mass[g, j]) * scale[g])
                if worst >= best or (f >= 0 and replicas[f] < 2):
                    continue
                if f >= 0:
                    worst = max(worst, second[f] if where[f] == g or where[f] == busiest else first[f])
                    if holds[f, busiest]:
                        worst = max(worst, (relieved + mass[g, j] / (replicas[f] - 1)) * scale[busiest])
                if worst < best:
                    best, expert, other, slot = worst, e, g, j
    if other < 0:
        return False
    if table[other, slot] >= 0:
        holds[table[other, slot], other] = False
    if expert >= 0:
        holds[expert, other] = True
    table[other, slot] = expert
    weigh(load, table, replicas, mass, total)
    for g in range(gpus):
        _order(table, mass, g, room[g])
    return True


@numba.njit(nogil=True, cache=True)
def relieve(load: Floats, table: Table, room: Ints, scale: Floats, floor: float, moves: int) -> float:
    """Relieve the busiest GPU again and again, until no move lowers its load.

    Every move leaves fewer GPUs at the largest load, or none, so it ends.

    Parameters
    ----------
    load : (E,) float64
    table : (G, C) int32
        No GPU holds an expert twice; changed in place.
    room : (G,) int64
        Slots of each GPU that may be used, the first ones.
    scale : (G,) float64
        Relative load of a GPU per unit of load.
    floor : float
        Largest load at which to stop.
    moves : int
        Most moves.

    Returns
    -------
    float
        Largest relative load.
    """
    gpus, per_gpu = table.shape
    replicas = np.empty(len(load), np.int64)
    mass, total = np.empty((gpus, per_gpu)), np.empty(gpus)
    holds = np.zeros((len(load), gpus), np.bool_)
    fair = 1 / scale
    weigh(load, table, replicas, mass, total)
    for g in range(gpus):
        _order(table, mass, g, room[g])
        for c in range(room[g]):
            if table[g, c] >= 0:
                holds[table[g, c], g] = True
    for _ in range(moves):
        busiest = lightest = np.int64(0)  # no literal: numba would compile what takes it for that as well
        most, least = 0.0, np.inf
        for g in range(gpus):
            relative = total[g] * scale[g]
            if relative > most:
                busiest, most = g, relative
            if relative < least:
                lightest, least = g, relative
        if most <= floor:
            break
        if not _swap(table, mass, total, scale, fair, holds, room, busiest, lightest) and not _convert(
            load, table, replicas, mass, total, scale, holds, room, busiest
        ):
            break
    return _largest(total, scale)


@numba.njit(nogil=True, cache=True)
def largest_load(load: Floats, table: Table, scale: Floats) -> float:
    """Return the largest relative load of a GPU."""
    replicas = np.empty(len(load), np.int64)
    mass, total = np.empty(table.shape), np.empty(len(table))
    weigh(load, table, replicas, mass, total)
    return _largest(total, scale)
