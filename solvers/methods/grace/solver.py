"""GRACE-MoE's placement: groups of experts that are used together, nodes first, and replicas where load is skewed.

References
----------
GRACE-MoE, arXiv 2509.25041: a reading of the paper's description; ``docs/methods/grace.md`` says what it leaves open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.arrange.conform import pack
from solvers.arrange.in_order import gpu_in_order
from solvers.arrange.shares import shares
from solvers.methods.grace.spectral import group
from solvers.searching.search import Search
from traces import Violations

__all__ = ["Grace", "group_sizes", "replicas_by_skew"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Grace:
    """Hierarchical spectral grouping by co-activation in the same layer, then replicas of the hot experts.

    Attributes
    ----------
    unevenness : float
        0 to 1: how far the number of experts of a group may be from its equal share, relative to it. Only where there
        are more slots than experts; then slots still bound it.
    skew_tolerance : float
        A GPU is overloaded, and its hot experts get replicas, if its load is more than this above the mean, relative to
        its fair share.
    restarts : int
        Runs of k-means for each split; the grouping that keeps the most co-activation wins.
    """

    unevenness: float = 0.25
    skew_tolerance: float = 0.05
    restarts: int = 4

    name: ClassVar[str] = "grace"
    summary: ClassVar[str] = (
        "GRACE-MoE (arXiv 2509.25041), as we read it: experts used together on one GPU, replicas where load is skewed."
    )

    def __post_init__(self) -> None:
        found = Violations()
        if not 0 <= self.unevenness <= 1:
            found.add("option_range", "/options/unevenness", f"Unevenness {self.unevenness}.", "Give 0 to 1.")
        if not (math.isfinite(self.skew_tolerance) and self.skew_tolerance >= 0):
            detail = f"Tolerance {self.skew_tolerance}."
            found.add("option_range", "/options/skew_tolerance", detail, "Give a finite number of at least 0.")
        if self.restarts < 1:
            found.add("option_range", "/options/restarts", f"{self.restarts} restarts.", "Give at least 1.")
        found.raise_if_any()

    def supports(self, problem: Problem) -> str | None:
        """Problems with co-activation counts and without constraints on places."""
        if problem.profile.coactivation is None:
            return "it needs tokens: counts per expert don't say which experts are used together."
        if problem.profile.top_k < 2:
            return "with one expert per token and layer, no experts are used together."
        if not problem.is_free:
            return "it knows no pins, exclusions, groups, uneven slots or budgets of replicas."
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the plan; layers for which no time is left are in order."""
        ordered = gpu_in_order(problem.num_experts, problem.num_gpus)
        rows = []
        for layer in range(problem.num_layers):
            late = search.done
            gpu = ordered if late else self.groups(problem, layer, np.random.default_rng([search.seed, layer]))
            load, fair, slots = problem.relative_load[layer], problem.topology.fair_share, problem.slots_per_gpu
            held = np.argwhere(
                replicas_by_skew(gpu, load, fair, math.inf if late else self.skew_tolerance, slots=slots)
            )
            rows.append(pack(held[:, :1].T, held[:, 1:].T, problem.num_gpus, slots))
        search.offer(np.concatenate(rows))

    def groups(self, problem: Problem, layer: int, rng: np.random.Generator) -> Ints:
        """Return the GPU of each expert of a layer, (E,): nodes by co-activation, then the GPUs inside each."""
        assert problem.profile.coactivation is not None
        weight = problem.profile.coactivation[layer].astype(np.float64)
        sizes, slots = tuple(problem.topology.gpus_per_node), problem.slots_per_gpu
        low, high = group_sizes(len(weight), sizes, slots, self.unevenness)
        node = group(weight, low, high, rng, restarts=self.restarts)
        gpu = np.empty(len(weight), np.int64)
        first = 0
        for number, size in enumerate(sizes):
            members = np.flatnonzero(node == number)
            if len(members):
                low, high = group_sizes(len(members), (1,) * size, slots, self.unevenness)
                inner = weight[np.ix_(members, members)]
                gpu[members] = first + group(inner, low, high, rng, restarts=self.restarts)
            first += size
        return gpu


def group_sizes(experts: int, gpus: tuple[int, ...], slots: int, unevenness: float) -> tuple[Ints, Ints]:
    """Return the fewest and the most experts of each group.

    Parameters
    ----------
    experts : int
        Experts to split, n.
    gpus : (P,) tuple of int
        GPUs of each group.
    slots : int
        Slots of a GPU; ``n <= slots * sum(gpus)``.
    unevenness : float
        How far from the equal share a group may be.

    Returns
    -------
    low, high : (P,) int64
        ``sum(low) <= n <= sum(high)``; shares rounded to whole experts are always within.
    """
    equal = np.array(shares(experts, gpus), np.int64)
    room = slots * np.array(gpus, np.int64)
    low = np.minimum(equal, np.ceil(equal * (1 - unevenness)).astype(np.int64))
    high = np.minimum(room, np.maximum(equal, np.floor(equal * (1 + unevenness)).astype(np.int64)))
    return low, high


def replicas_by_skew(gpu: Ints, load: Floats, fair_share: Floats, tolerance: float, *, slots: int) -> Bools:
    """Replica hot experts of overloaded GPUs to the least loaded ones, while there are slots and it helps.

    The GPU with the most load relative to its fair share comes first. Of its experts, the one with the most load per
    replica gets one more, on the GPU with the least load that has a free slot and none of it; all replicas of an expert
    then serve equal parts of its load. The next expert is tried where that would not lower the larger of the two GPUs'
    loads. It ends when no GPU is overloaded, slots run out, or no replica helps the most loaded one. So the number of
    replicas follows from the skew.

    Parameters
    ----------
    gpu : (E,) int64
        Where each expert is.
    load : (E,) float64
        Shares of the layer's load; sum to 1.
    fair_share : (G,) float64
        Share of the load that is fair for each GPU; sums to 1.
    tolerance : float
        Load above the fair share, relative to it, that is no overload.
    slots : int
        Slots of a GPU.

    Returns
    -------
    (E, G) bool
        Which GPU holds which expert. Only experts with more than the mean load per expert are copied.
    """
    experts, gpus = len(gpu), len(fair_share)
    held: Bools = gpu[:, None] == np.arange(gpus)
    hot = load > 1 / experts
    while True:
        per_replica = load / held.sum(axis=1)
        level = per_replica @ held / fair_share
        worst = int(level.argmax())
        free = held.sum(axis=0) < slots
        if level[worst] <= 1 + tolerance or not free.any():
            return held
        added = False
        candidates = np.flatnonzero(held[:, worst] & hot)
        for expert in candidates[np.argsort(-per_replica[candidates], kind="stable")]:
            targets = np.flatnonzero(free & ~held[expert])
            if not len(targets):
                continue
            target = targets[level[targets].argmin()]
            trial = held.copy()
            trial[expert, target] = True
            after = (load / trial.sum(axis=1)) @ trial / fair_share
            if max(after[worst], after[target]) < level[worst]:
                held, added = trial, True
                break
        if not added:
            return held
