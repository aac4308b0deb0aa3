"""Arranging experts in slots: from the GPU that each expert is wanted on to a map that keeps every hard constraint."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem, Termination
from solvers.arrange.groups import conform_with_groups
from solvers.arrange.kernels import separate_layer
from solvers.plans import NoPlanError
from solvers.searching.search import Search

__all__ = ["conform", "pack", "separate_replicas"]

Table = npt.NDArray[np.int32]
FORBIDDEN = 1e9  # above any sum of experts that are elsewhere, of which there are at most 32,767


def pack(
    expert: npt.NDArray[np.integer[Any]], gpu: npt.NDArray[np.integer[Any]], num_gpus: int, slots_per_gpu: int
) -> Table:
    """Return the map (L, S) of items that lie on GPUs.

    Parameters
    ----------
    expert : (L, P) integers
        Expert of each item; -1 for nothing.
    gpu : (L, P) integers
        GPU of each item; at most `slots_per_gpu` experts per GPU.
    """
    layers = len(expert)
    table = np.full((layers, num_gpus * slots_per_gpu), -1, np.int32)
    row, item = np.nonzero(expert >= 0)
    where = gpu[row, item]
    order = np.lexsort((expert[row, item], where, row))  # experts rise within a GPU: one plan, one map
    row, where, held = row[order], where[order], expert[row, item][order]
    key = row * num_gpus + where
    first = np.searchsorted(key, key)
    table[row, where * slots_per_gpu + np.arange(len(key)) - first] = held
    return table


def conform(problem: Problem, gpu: npt.NDArray[np.integer[Any]], search: Search | None = None) -> Table:
    """Return the map that is nearest to the wanted GPUs and keeps the hard constraints.

    Parameters
    ----------
    problem : Problem
    gpu : (L, E) integers
        Wanted GPU of each expert. Nearest means: the fewest experts go elsewhere (an assignment problem per layer).
    search : Search, optional
        Cancelling it ends this early, where groups are hard to pack.

    Returns
    -------
    (L, S) int32
        One replica of each expert, more only where pins ask for it.

    Raises
    ------
    NoPlanError
        If no arrangement keeps the constraints.
    """
    counts = np.stack([np.bincount(row, minlength=problem.num_gpus) for row in gpu])
    if problem.is_free and (counts <= problem.slots_per_gpu).all():
        expert = np.tile(np.arange(problem.num_experts), (problem.num_layers, 1))
        return pack(expert, gpu, problem.num_gpus, problem.slots_per_gpu)
    return np.concatenate([_conform_layer(problem, layer, row, search) for layer, row in enumerate(gpu)])


def _conform_layer(problem: Problem, layer: int, wanted: npt.NDArray[np.integer[Any]], search: Search | None) -> Table:
    from scipy.optimize import linear_sum_assignment

    layer_id = int(problem.profile.layer_ids[layer])
    allowed = problem.allowed[layer].copy()
    pins = [pin for pin in problem.constraints.pins if pin.layer_id in (None, layer_id)]
    pinned: dict[int, list[int]] = {}
    for pin in pins:
        if pin.gpu not in pinned.setdefault(pin.expert, []):
            pinned[pin.expert].append(pin.gpu)
    _keep_groups(problem, layer, wanted, allowed, pinned)
    experts = list(range(problem.num_experts))
    rows = [np.where(allowed[e], (np.arange(problem.num_gpus) != wanted[e]) * 1.0, FORBIDDEN) for e in experts]
    for expert, gpus in pinned.items():
        only = np.full((len(gpus), problem.num_gpus), FORBIDDEN)
        only[np.arange(len(gpus)), gpus] = 0.0
        rows[expert] = only[0]
        experts += [expert] * (len(gpus) - 1)
        rows += list(only[1:])
    slot_gpu = np.repeat(np.arange(problem.num_gpus), problem.capacity)
    cost = np.stack(rows)[:, slot_gpu]
    if cost.shape[0] <= cost.shape[1]:
        item, slot = linear_sum_assignment(cost)
        if cost[item, slot].max() < FORBIDDEN:
            expert = np.array(experts)[item]
            return pack(expert[None], slot_gpu[slot][None], problem.num_gpus, problem.slots_per_gpu)
    if any(group.layer_id in (None, layer_id) for group in problem.constraints.groups):
        return conform_with_groups(problem, layer, wanted, search)
    detail = f"No arrangement of layer {layer_id} that keeps the pins, exclusions and slots exists."
    raise NoPlanError(Termination(reason="no_plan", detail=detail))


def _keep_groups(
    problem: Problem,
    layer: int,
    wanted: npt.NDArray[np.integer[Any]],
    allowed: npt.NDArray[np.bool_],
    pinned: dict[int, list[int]],
) -> None:
    """Choose a node for each group, largest group first, and forbid its members elsewhere (changes `allowed`).

    Greedy: it may miss an arrangement that exists. Then the exact model decides.
    """
    layer_id = int(problem.profile.layer_ids[layer])
    node = problem.topology.node_of_gpu
    room = np.bincount(node, weights=problem.capacity)
    groups = [group for group in problem.constraints.groups if group.layer_id in (None, layer_id)]
    for group in sorted(groups, key=lambda group: -len(group.experts)):
        members = list(group.experts)
        liked = np.bincount(node[wanted[members]], minlength=problem.topology.num_nodes).astype(float)
        liked[room < len(members)] = -1.0
        for member in members:
            reachable = np.bincount(node, weights=allowed[member], minlength=len(liked)) > 0
            liked[~reachable] = -1.0
            for gpu in pinned.get(member, []):
                liked[np.arange(len(liked)) != node[gpu]] = -1.0
        chosen = int(liked.argmax())
        room[chosen] -= len(members)
        allowed[members] &= (node == chosen)[None, :]


def separate_replicas(table: npt.NDArray[np.integer[Any]], load: npt.NDArray[np.float64], num_gpus: int) -> Table:
    """Move second replicas of an expert off a GPU that has one, by the swap with the smaller largest load.

    Parameters
    ----------
    table : (L, S) integers
    load : (L, E) float64
        Load of each expert; a replica carries an equal part.
    num_gpus : int

    Returns
    -------
    (L, S) int32
        A replica for which no GPU is left becomes an empty slot.
    """
    result = np.array(table, dtype=np.int32)
    for layer, row in enumerate(result):
        separate_layer(load[layer], row.reshape(num_gpus, -1))
    return result
