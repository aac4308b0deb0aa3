"""Experts in order: what an engine does when nobody plans, and where searches start that have nothing better."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.engines.layout import default_slots
from solvers.arrange.conform import conform
from solvers.searching.search import Search

__all__ = ["gpu_in_order", "in_order"]


def gpu_in_order(num_experts: int, num_gpus: int) -> npt.NDArray[np.int64]:
    """Return the GPU of each expert, (E,), in blocks as equal as can be: `default_slots`' contiguous layout."""
    per_gpu = -(-num_experts // num_gpus)
    held = np.array(default_slots("contiguous", num_experts, num_gpus, per_gpu)).reshape(num_gpus, per_gpu)
    gpu: npt.NDArray[np.int64] = np.nonzero(held >= 0)[0]
    return gpu


def in_order(problem: Problem, search: Search | None = None) -> npt.NDArray[np.int32]:
    """Return the map (L, S) that is nearest to the experts in order and keeps the hard constraints.

    Parameters
    ----------
    problem : Problem
    search : Search, optional
        See `conform`.

    Raises
    ------
    NoPlanError
        If no arrangement keeps the constraints.
    """
    gpu = gpu_in_order(problem.num_experts, problem.num_gpus)
    return conform(problem, np.tile(gpu, (problem.num_layers, 1)), search)
