"""The split of each expert's tokens over its replicas that leaves the busiest GPU least to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.loads.split import best_split
from placement.plan.plan import Plan, replicas_on_gpu
from placement.problem.problem import Problem
from traces.support.content import ByContent
from traces.support.kinds import checked

__all__ = ["TokenSplit", "optimal_split"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TokenSplit(ByContent):
    """Shares of the experts' tokens.

    Attributes
    ----------
    share : (L, E, G) float64
        Share of expert e's tokens that GPU g serves; 0 where it has no replica, rows over g sum to 1.
    max_load : (L,) float64
        Largest GPU load of each layer, relative to the GPU's fair share; 1 is balanced. No split has a smaller one.
    """

    share: Array
    max_load: Array

    def __repr__(self) -> str:
        layers, experts, gpus = self.share.shape
        largest = f"max_load {self.max_load.mean():.4f} on average, {self.max_load.max():.4f} at most"
        return f"TokenSplit of {experts} experts over {gpus} GPUs in {layers} layers: {largest}"


@checked
def optimal_split(problem: Problem, plan: Plan | npt.NDArray[np.integer[Any]]) -> TokenSplit:
    """Split the problem's loads over the replicas of a map, so that the largest GPU load of each layer is least.

    Parameters
    ----------
    problem : Problem
        Its profile has the loads, its topology the fair shares. Replica policy and ownership do not matter.
    plan : Plan or (L, S) integers
        A plan of the problem's sizes, or its physical-to-logical map with every expert present; -1 empty.

    Returns
    -------
    TokenSplit

    Raises
    ------
    InputError
        If the map is not one of the problem.
    """
    replicas = replicas_on_gpu(problem.table_of(plan), problem.num_experts, problem.num_gpus)
    fair = problem.topology.fair_share
    share, largest = best_split(problem.profile.load, replicas > 0, fair)
    return TokenSplit(share=share, max_load=largest)
