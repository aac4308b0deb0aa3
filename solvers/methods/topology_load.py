"""Hot experts near the ranks that call them: topology-aware placement by load and hops, a published baseline.

References
----------
Cluster Topology-Driven Placement of Experts, arXiv 2508.09229, the load-aware ILP; ``docs/methods/topology_load.md``.
Jonker and Volgenant, Computing 38 (1987) for the assignment problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from placement import Problem, Termination
from placement.cost.shares import home_share
from solvers.arrange.conform import pack
from solvers.arrange.in_order import gpu_in_order
from solvers.plans import NoPlanError
from solvers.searching.search import Search

__all__ = ["TopologyLoad", "hops_from_callers"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
# Price of an expert away from its place in order, in units of the layer's dearest place: it only decides between
# placements that cost the same but for rounding.
AWAY = 1e-12


@dataclass(frozen=True, kw_only=True)
class TopologyLoad:
    """The least sum of load times hops from the callers, exactly, one assignment problem per layer.

    Between placements of equal cost, the one with the fewest experts away from the linear order is taken.

    Attributes
    ----------
    callers : {"layer", "expert"}
        Whose home ranks count: those of all of a layer's tokens, as published, or those of each expert's own tokens.
        They differ only with measured ownership.
    """

    callers: Literal["layer", "expert"] = "layer"

    name: ClassVar[str] = "topology_load"
    summary: ClassVar[str] = (
        "Hot experts near the ranks that call them (arXiv 2508.09229): least load times hops, exactly."
    )

    def supports(self, problem: Problem) -> str | None:
        """Dispatch, where tokens have a home to be called from; one replica of each expert."""
        if problem.objective.execution != "dispatch":
            return "its hops lead from the home ranks of tokens (execution 'dispatch')."
        if problem.constraints.groups:
            return "it knows no groups."
        if problem.sizes.survival is not None:
            return "it does not know what has to survive."
        if (problem.pinned.sum(axis=2) > 1).any():
            return "it places one replica of each expert, but an expert is pinned to several GPUs."
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the optimum of the model."""
        hops = hops_from_callers(problem, self.callers)
        if bool(np.all(np.isclose(hops.min(axis=2), hops.max(axis=2), rtol=1e-12, atol=0.0))):
            search.note(
                "All GPUs are equally far from the callers: the model has no preference, experts keep their order."
            )
        if problem.objective.dedup != "none":
            search.note("The model counts a message per expert, also where the engine sends one per GPU or node.")
        cost = problem.profile.load[:, :, None] * hops
        barred = ~problem.allowed
        barred |= problem.pinned.any(axis=2, keepdims=True) & ~problem.pinned
        cost[barred] = np.inf
        gpu = np.empty((problem.num_layers, problem.num_experts), np.int64)
        least = 0.0
        for layer in range(problem.num_layers):
            # Without a look at the limits: there is no plan before the last layer, and each takes milliseconds.
            try:
                gpu[layer], of_layer = _place(cost[layer], problem.capacity)
            except ValueError as error:
                layer_id = problem.profile.layer_ids[layer]
                detail = f"No arrangement of layer {layer_id} that keeps the pins, exclusions and slots exists."
                raise NoPlanError(Termination(reason="no_plan", detail=detail)) from error
            least += of_layer
        experts = np.tile(np.arange(problem.num_experts), (problem.num_layers, 1))
        search.offer(pack(experts, gpu, problem.num_gpus, problem.slots_per_gpu))
        own = self.callers == "expert" or home_share(problem) is None
        if own and problem.objective.dedup == "none" and problem.capacity.sum() == problem.num_experts:
            # The model is the traffic term then, and no other term is negative. In spare slots, replicas might save
            # more.
            search.bound(problem.objective.traffic_weight * least / float(problem.profile.load.sum()))


def hops_from_callers(problem: Problem, callers: Literal["layer", "expert"] = "layer") -> Floats:
    """Return the mean hop cost from the ranks that call a layer to each GPU, (L, E, G).

    Parameters
    ----------
    problem : Problem
    callers : {"layer", "expert"}
        See `TopologyLoad`. With "layer", the same for all experts of a layer.
    """
    hop, shape = problem.topology.hop_cost, (problem.num_layers, problem.num_experts, problem.num_gpus)
    homes = home_share(problem)
    if homes is None:
        return np.broadcast_to(hop.mean(axis=0), shape)
    if callers == "layer":
        homes = np.einsum("le,leh->lh", problem.relative_load, homes)[:, None, :]
    return np.broadcast_to(homes @ hop, shape)


def _place(cost: Floats, capacity: Ints) -> tuple[Ints, float]:
    """Return GPUs (E,) of least cost, nearest to the linear order among equals, and that least cost.

    Parameters
    ----------
    cost : (E, G) float64
        Infinite where an expert may not be.
    capacity : (G,) int64

    Raises
    ------
    ValueError
        If the experts don't fit.
    """
    from scipy.optimize import linear_sum_assignment

    E, G = cost.shape
    slot_gpu = np.repeat(np.arange(G), capacity)
    scale = float(cost[np.isfinite(cost)].max()) or 1.0
    away = np.where(np.arange(G) == gpu_in_order(E, G)[:, None], 0.0, AWAY * scale)
    expert, slot = linear_sum_assignment(cost[:, slot_gpu])
    least = float(cost[expert, slot_gpu[slot]].sum())
    slot = linear_sum_assignment((cost + away)[:, slot_gpu])[1]
    return slot_gpu[slot], least
