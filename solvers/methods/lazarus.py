"""Lazarus: replicas by load, a few of every expert, and experts of like counts together on the same nodes.

References
----------
Wu and others, Lazarus: Resilient and Elastic Training of Mixture-of-Experts Models with Adaptive Expert Placement,
arXiv 2407.04656, sections 4.1 (allocation) and 4.2 (maximum rank overlap). Written from its description.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.searching.search import Search
from traces import InputError

__all__ = ["Lazarus"]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Lazarus:
    """Replicas in proportion to load, placed with maximum rank overlap.

    Attributes
    ----------
    least : int
        Nodes that every expert is on at least, as far as slots allow.
    """

    least: int = 2

    name: ClassVar[str] = "lazarus"
    summary: ClassVar[str] = "Replicas by load on as few different sets of nodes as can be: Lazarus's rank overlap."

    def __post_init__(self) -> None:
        if self.least < 1:
            raise InputError.of("option_range", "/options/least", f"{self.least} nodes.", "Give at least 1.")

    def supports(self, problem: Problem) -> str | None:
        """Equal nodes, and no pins, exclusions, groups or budgets."""
        constraints = problem.constraints
        if constraints.pins or constraints.forbidden or constraints.groups or problem.replicas_limited:
            return "it knows no pins, exclusions, groups or budgets of replicas."
        rooms = np.bincount(problem.topology.node_of_gpu, weights=problem.capacity)
        if len(set(rooms.tolist())) > 1 or len(set(problem.capacity.tolist())) > 1:
            return "it knows equal nodes only."
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the plan."""
        search.offer(np.stack([self._layer(problem, load) for load in problem.relative_load]))

    def _layer(self, problem: Problem, load: Floats) -> npt.NDArray[np.int32]:
        nodes, room = problem.topology.num_nodes, problem.num_slots // problem.topology.num_nodes
        on_nodes = _counts(load, nodes, room, self.least)
        order = np.argsort(on_nodes, kind="stable")  # not by load as well: the busiest would share their nodes
        held: list[list[int]] = [[] for _ in range(nodes)]
        left, fresh = on_nodes.copy(), list(range(nodes))
        for begin in range(0, len(order), room):
            group = order[begin : begin + room]
            # All of a group go to the same nodes, as many as its least expert is on.
            chosen, fresh = fresh[: on_nodes[group[0]]], fresh[on_nodes[group[0]] :]
            for node in chosen:
                held[node] += group.tolist()
                left[group] -= 1
        for expert in order[::-1]:
            free = sorted(
                (n for n in range(nodes) if len(held[n]) < room and expert not in held[n]), key=lambda n: len(held[n])
            )
            for node in free[: max(left[expert], 0)]:
                held[node].append(int(expert))
                left[expert] -= 1
        return _on_gpus(problem, load / (on_nodes - np.maximum(left, 0)), held)


def _counts(load: Floats, nodes: int, room: int, least: int) -> Ints:
    """Return the nodes that each expert is on, (E,): `least` for all as far as there is room, the rest by load."""
    slots, experts = nodes * room, len(load)
    counts = np.full(experts, min(least, nodes, slots // experts), dtype=np.int64)
    counts = np.maximum(counts, 1)
    for _ in range(slots - int(counts.sum())):
        share = np.where(counts < nodes, load / counts, -1.0)
        best = int(share.argmax())
        if share[best] < 0:
            break
        counts[best] += 1
    return counts


def _on_gpus(problem: Problem, share: Floats, held: list[list[int]]) -> npt.NDArray[np.int32]:
    """Return the row (S,): the experts of each node on its GPUs, the busiest first, always on the lightest GPU."""
    slots = problem.slots_per_gpu
    row = np.full((problem.num_gpus, slots), -1, np.int32)
    used, total = np.zeros(problem.num_gpus, np.int64), np.zeros(problem.num_gpus)
    for node, experts in enumerate(held):
        gpus = np.flatnonzero(problem.topology.node_of_gpu == node)
        for expert in sorted(experts, key=lambda e: -share[e]):
            gpu = min((g for g in gpus.tolist() if used[g] < slots), key=lambda g: total[g] / problem.topology.speed[g])
            row[gpu, used[gpu]] = expert
            used[gpu] += 1
            total[gpu] += share[expert]
    return row.ravel()
