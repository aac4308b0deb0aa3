"""All arrangements of one layer's experts on the GPUs, and which of them differ only by the names of equal GPUs."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem

__all__ = ["Arrangements", "count_arrangements"]

MAX_GPUS = 8  # renamings are looked for among all G! permutations; 40,320 of them
Ints = npt.NDArray[np.integer[Any]]


def count_arrangements(problem: Problem) -> int:
    """Return how many ways there are to put one replica of each expert on a GPU with room for it.

    That is ``E! [x^E] prod_g sum_(k <= C_g) x^k / k!``.
    """
    ways = [1] + [0] * problem.num_experts
    for room in problem.capacity.tolist():
        ways = [
            sum(ways[before] * math.comb(total, total - before) for before in range(max(0, total - room), total + 1))
            for total in range(problem.num_experts + 1)
        ]
    return ways[-1]


@dataclass(frozen=True, kw_only=True)
class Arrangements:
    """Arrangements of a layer, up to the names of GPUs that nothing tells apart.

    Attributes
    ----------
    gpu : (n, E) int8
        GPU of each expert, every arrangement.
    names : (p, G) int64
        Renamings that change neither hop costs, fair shares nor room; only the identity where a constraint names GPUs.
    representative : (m,) int64
        One arrangement of each class.
    class_of : (n,) int64
        Class of each arrangement.
    renamed_by : (n,) int64
        The renaming that turns its representative into it.
    """

    gpu: npt.NDArray[np.int8]
    names: npt.NDArray[np.int64]
    representative: npt.NDArray[np.int64]
    class_of: npt.NDArray[np.int64]
    renamed_by: npt.NDArray[np.int64]

    @classmethod
    def of(cls, problem: Problem) -> Arrangements:
        """Enumerate; see `count_arrangements` for how many there are."""
        gpu = _enumerate(problem.num_experts, problem.capacity)
        names = renamings(problem)
        weight = problem.num_gpus ** np.arange(problem.num_experts, dtype=np.int64)
        key = gpu @ weight
        order = np.argsort(key)
        ordered = key[order]
        class_of = np.full(len(gpu), -1)
        renamed_by = np.zeros(len(gpu), np.int64)
        representative: list[int] = []
        for state in range(len(gpu)):
            if class_of[state] < 0:
                images = order[np.searchsorted(ordered, names[:, gpu[state]] @ weight)]
                images, first = np.unique(images, return_index=True)
                class_of[images] = len(representative)
                renamed_by[images] = first
                representative.append(state)
        return cls(
            gpu=gpu,
            names=names,
            representative=np.array(representative),
            class_of=class_of,
            renamed_by=renamed_by,
        )


def renamings(problem: Problem) -> npt.NDArray[np.int64]:
    """Return the permutations of the GPUs that leave the problem as it is, (p, G), the identity first."""
    G, topology = problem.num_gpus, problem.topology
    identity = np.arange(G)[None]
    if not problem.is_free or G > MAX_GPUS:
        return identity
    names: npt.NDArray[np.int64] = np.array(list(itertools.permutations(range(G))))
    same = (topology.fair_share[names] == topology.fair_share).all(axis=1)
    same &= (problem.capacity[names] == problem.capacity).all(axis=1)
    hop = topology.hop_cost
    same[same] = [np.array_equal(hop[np.ix_(name, name)], hop) for name in names[same]]
    kept: npt.NDArray[np.int64] = names[same]
    return kept


def _enumerate(num_experts: int, capacity: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    gpu = np.zeros((1, 0), np.int8)
    left = capacity[None].astype(np.int16)
    for _ in range(num_experts):
        state, choice = np.nonzero(left > 0)
        gpu = np.concatenate([gpu[state], choice[:, None].astype(np.int8)], axis=1)
        left = left[state]
        left[np.arange(len(left)), choice] -= 1
    return gpu
