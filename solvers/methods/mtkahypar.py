"""Hypergraph partitioning as a start: experts are vertices, tokens are hyperedges, GPUs are blocks.

The connectivity of a hyperedge is the fan-out of its token. Needs the library Mt-KaHyPar (extra ``partition``).

References
----------
L. Gottesbüren, T. Heuer, N. Maas, P. Sanders and S. Schlag, "Scalable High-Quality Hypergraph Partitioning", ACM
Transactions on Algorithms 20 (2024). https://github.com/kahypar/mt-kahypar
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.arrange.conform import conform
from solvers.arrange.in_order import gpu_in_order
from solvers.searching.search import Search
from traces import InputError

__all__ = ["MtKaHyPar"]

Ints = npt.NDArray[np.int64]
MISSING = "it needs the library Mt-KaHyPar; install the extra 'partition': pip install 'moe-placement[partition]'."


@cache
def _library() -> tuple[Any, Any]:
    """Return the library, and its one environment in this process."""
    import mtkahypar

    return mtkahypar, mtkahypar.initialize(1, False)


@dataclass(frozen=True, kw_only=True)
class MtKaHyPar:
    """Fewest GPUs per token by multilevel hypergraph partitioning, nodes first; equal counts, no load, no replicas.

    Attributes
    ----------
    tokens : int
        Sampled tokens to build the hypergraph from.
    """

    tokens: int = 8192

    name: ClassVar[str] = "mtkahypar"
    summary: ClassVar[str] = (
        "Hypergraph partitioning of tokens by Mt-KaHyPar (extra 'partition'), as a start for others."
    )

    def __post_init__(self) -> None:
        if not 1 <= self.tokens <= 1_000_000:
            raise InputError.of("option_range", "/options/tokens", f"{self.tokens} tokens.", "Give 1 to 1,000,000.")

    def supports(self, problem: Problem) -> str | None:
        """Problems with whole tokens, where the library is installed."""
        if problem.profile.sample is None:
            return "it needs whole tokens: counts per expert don't say which experts are used together."
        if problem.sizes.survival is not None:
            return "it does not know what has to survive."
        if find_spec("mtkahypar") is None:
            return MISSING
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the plan; layers for which no time is left are in order."""
        E, G = problem.num_experts, problem.num_gpus
        gpu = np.tile(gpu_in_order(E, G), (problem.num_layers, 1))
        search.offer(conform(problem, gpu, search), 0)
        sample = problem.profile.sample
        assert sample is not None  # see supports
        for layer in range(problem.num_layers):
            if search.done or G == 1:
                break
            ids = np.sort(sample.topk_ids[: self.tokens, layer].astype(np.int64), axis=1)
            edges, weight = np.unique(ids, axis=0, return_counts=True)
            gpu[layer] = _place(problem, edges, weight, search.seed)
        search.offer(conform(problem, gpu, search), 1)


def _place(problem: Problem, edges: Ints, weight: Ints, seed: int) -> Ints:
    """Return the GPU of each expert, (E,): to nodes, then to the GPUs of each."""
    node, room = problem.topology.node_of_gpu, problem.capacity
    gpu = np.zeros(problem.num_experts, np.int64)
    every = np.arange(problem.num_experts)
    block = _partition(every, edges, weight, _targets(np.bincount(node, weights=room), len(every)), seed)
    for number in range(problem.topology.num_nodes):
        own, gpus = every[block == number], np.flatnonzero(node == number)
        gpu[own] = gpus[_partition(own, edges, weight, _targets(room[gpus], len(own)), seed)]
    return gpu


def _targets(room: npt.NDArray[Any], count: int) -> Ints:
    """Share `count` experts out to places in proportion to their room, in whole numbers."""
    edges = np.round(np.cumsum(room) * (count / room.sum())).astype(np.int64)
    shares: Ints = np.diff(edges, prepend=0)
    return shares


def _partition(experts: Ints, edges: Ints, weight: Ints, targets: Ints, seed: int) -> Ints:
    """Return the block of each of some experts; block b gets `targets[b]` of them at most."""
    if len(targets) == 1 or len(experts) <= 1:
        return np.zeros(len(experts), np.int64)
    library, environment = _library()
    place = np.full(int(max(edges.max(), experts.max())) + 2, -1)  # the last entry is for -1: no expert
    place[experts] = np.arange(len(experts))
    members = [row[row >= 0].tolist() for row in place[edges]]
    kept = [number for number, row in enumerate(members) if len(row) > 1]
    if not kept:
        return np.repeat(np.arange(len(targets)), targets)
    library.set_seed(seed % 2**31)
    context = environment.context_from_preset(library.PresetType.DETERMINISTIC)
    context.set_partitioning_parameters(len(targets), 0.0, library.Objective.KM1)
    context.set_individual_target_block_weights(targets.tolist())
    context.logging = False
    graph = environment.create_hypergraph(
        context,
        len(experts),
        len(kept),
        [members[number] for number in kept],
        [1] * len(experts),
        weight[kept].tolist(),
    )
    found: Ints = np.asarray(graph.partition(context).get_partition(), dtype=np.int64)
    return found
