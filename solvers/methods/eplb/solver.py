"""EPLB: DeepSeek's expert-parallel load balancer, hierarchical and global.

References
----------
https://github.com/deepseek-ai/EPLB (the algorithm; its README has the example of the tests); ``docs/solvers.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.arrange.conform import separate_replicas
from solvers.methods.eplb.kernels.rebalance import rebalance_layer
from solvers.searching.search import Search
from traces import InputError, Violations

__all__ = ["Eplb", "rebalance"]


def rebalance(
    weight: npt.ArrayLike, *, num_slots: int, num_groups: int, num_nodes: int, num_gpus: int
) -> npt.NDArray[np.int64]:
    """Replicate and place experts by load.

    Parameters
    ----------
    weight : (L, E) float
        Load per layer and expert.
    num_slots : int
        Slots per layer, S (``num_replicas`` there).
    num_groups, num_nodes, num_gpus : int
        Hierarchical if groups can be dealt out to nodes evenly, else global (one group, one node).

    Returns
    -------
    (L, S) int64
        Physical-to-logical map; a GPU may hold two replicas of an expert.

    Raises
    ------
    InputError
        If the sizes don't divide.
    """
    load = np.ascontiguousarray(weight, dtype=np.float64)
    if load.ndim != 2 or not np.isfinite(load).all() or (load < 0).any():
        raise InputError.of("weight", "/weight", "Expected finite loads (layers, experts).", "Correct the matrix.")
    if num_groups % max(num_nodes, 1):
        num_groups = num_nodes = 1
    found = Violations()
    experts = load.shape[1]
    for pointer, whole, part in (
        ("/num_groups", experts, num_groups),
        ("/num_gpus", num_slots, num_gpus),
        ("/num_nodes", num_gpus, num_nodes),
    ):
        if part < 1 or whole % part:
            found.add(
                "not_divisible", pointer, f"{whole} can't be divided into {part} equal parts.", "Change the sizes."
            )
    if num_slots < experts:
        found.add("more_experts_than_slots", "/num_slots", f"{experts} experts, {num_slots} slots.", "Add slots.")
    found.raise_if_any()
    load = load.view()
    load.flags.writeable = False  # as in a profile: for other arrays, the loop would be compiled once more
    table = np.empty((len(load), num_slots), np.int64)
    for layer in range(len(load)):
        rebalance_layer(load[layer], num_slots, num_groups, num_nodes, num_gpus, table[layer])
    return table


@dataclass(frozen=True, kw_only=True)
class Eplb:
    """DeepSeek's load balancer.

    Attributes
    ----------
    policy : {"auto", "hierarchical", "global"}
        ``hierarchical`` keeps expert groups on nodes; ``auto`` does so if `num_groups` is given and divides evenly.
    num_groups : int or None
        Expert groups of the model's router (8 for DeepSeek-V3).
    """

    policy: Literal["auto", "hierarchical", "global"] = "auto"
    num_groups: int | None = None

    name: ClassVar[str] = "eplb"
    summary: ClassVar[str] = (
        "DeepSeek's EPLB: replicas of the hottest experts, then heaviest first; balances load only."
    )

    def __post_init__(self) -> None:
        if self.num_groups is not None and self.num_groups < 1:
            raise InputError.of("option_range", "/options/num_groups", f"{self.num_groups} groups.", "Give at least 1.")

    def supports(self, problem: Problem) -> str | None:
        """Equal GPUs and no pins, exclusions or groups; sizes that divide, for the hierarchical policy."""
        if not problem.is_free or len(set(problem.topology.speed.tolist())) > 1:
            return "it knows no pins, exclusions, groups, uneven slots, budgets of replicas or GPU speeds."
        groups, nodes = self.num_groups, problem.topology.num_nodes
        if groups is not None and problem.num_experts % groups:
            return f"{problem.num_experts} experts can't be divided into {groups} groups; num_groups must divide them."
        if self.policy == "hierarchical":
            if groups is None:
                return "the hierarchical policy needs num_groups."
            if groups % nodes or len(set(problem.topology.gpus_per_node)) > 1:
                return f"{groups} groups can't be dealt out to {nodes} equal nodes."
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the plan, second replicas on a GPU moved away where the problem forbids them."""
        table: npt.NDArray[np.integer[Any]] = self.table(problem)
        if problem.constraints.distinct_replicas:
            table = separate_replicas(table, problem.profile.load, problem.num_gpus)
        search.offer(table)

    def table(self, problem: Problem) -> npt.NDArray[np.int64]:
        """Return EPLB's own map (L, S)."""
        nodes = problem.topology.num_nodes
        hierarchical = self.policy != "global" and self.num_groups is not None
        even = len(set(problem.topology.gpus_per_node)) == 1
        return rebalance(
            problem.profile.load,
            num_slots=problem.num_slots,
            num_groups=self.num_groups if hierarchical and even and self.num_groups else 1,
            num_nodes=nodes if hierarchical and even else 1,
            num_gpus=problem.num_gpus,
        )
