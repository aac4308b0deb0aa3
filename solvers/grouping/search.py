"""Alternating: experts to GPUs for a grouping, requests to GPUs for a plan; each exactly, until neither gains.

References
----------
ELDR (arXiv 2607.00466) groups requests by what they use and sends each group to a worker; Sem-MoE plans experts and
requests together. Each half here is an assignment problem (Kuhn 1955), so that no step makes it worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from placement import Problem

__all__ = ["Grouping", "grouped", "hops_to_gpus", "placed", "together"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ENOUGH = 1e-12  # relative: rounding is no gain
MOST_STEPS = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Grouping:
    """Requests on GPUs, experts on GPUs, and what that costs.

    Attributes
    ----------
    worker : (R,) int64
        GPU of each request.
    gpu : (L, E) int64
        GPU of each expert.
    hops : float
        Hop cost of all uses.
    """

    worker: Ints
    gpu: Ints
    hops: float


def hops_to_gpus(problem: Problem, uses: Floats, gpu: Ints) -> Floats:
    """Return what each request's uses cost on each GPU, (R, G), for experts on GPUs, (L, E)."""
    hop = problem.topology.hop_cost  # from home to expert
    cost: Floats = uses.reshape(len(uses), -1) @ hop.T[gpu].reshape(-1, problem.num_gpus)
    return cost


def placed(problem: Problem, uses: Floats, worker: Ints) -> Ints:
    """Return the best GPU of each expert, (L, E), for requests on GPUs; exact."""
    gpus = problem.num_gpus
    slot_gpu = np.repeat(np.arange(gpus), problem.capacity)
    from_gpu = np.zeros((gpus, *uses.shape[1:]))
    np.add.at(from_gpu, worker, uses)
    found = np.empty(uses.shape[1:], np.int64)
    for layer in range(uses.shape[1]):
        cost = from_gpu[:, layer].T @ problem.topology.hop_cost
        expert, slot = linear_sum_assignment(cost[:, slot_gpu])
        found[layer, expert] = slot_gpu[slot]
    return found


def grouped(problem: Problem, uses: Floats, gpu: Ints, per_gpu: int) -> Ints:
    """Return the best GPU of each request, (R,), for experts on GPUs, at most `per_gpu` on each; exact."""
    cost = np.repeat(hops_to_gpus(problem, uses, gpu), per_gpu, axis=1)
    worker = np.empty(len(uses), np.int64)
    request, place = linear_sum_assignment(cost)
    worker[request] = place // per_gpu
    return worker


def together(problem: Problem, uses: Floats, per_gpu: int, *, restarts: int, seed: int) -> Grouping:
    """Return the best grouping and plan of several starts.

    Parameters
    ----------
    problem : Problem
    uses : (R, L, E) float64
    per_gpu : int
        Requests on a GPU at most.
    restarts : int
        Requests dealt out at random, so many times.
    seed : int
    """
    rng = np.random.default_rng([seed, 0x67726F75])
    found = [
        _alternated(problem, uses, per_gpu, rng.permutation(len(uses)) % problem.num_gpus) for _ in range(restarts)
    ]
    return min(found, key=lambda each: each.hops)


def _alternated(problem: Problem, uses: Floats, per_gpu: int, worker: Ints) -> Grouping:
    gpu = placed(problem, uses, worker)
    hops = np.inf
    for _ in range(MOST_STEPS):
        worker = grouped(problem, uses, gpu, per_gpu)
        gpu = placed(problem, uses, worker)
        now = float(hops_to_gpus(problem, uses, gpu)[np.arange(len(uses)), worker].sum())
        if now >= hops * (1 - ENOUGH):
            break
        hops = now
    return Grouping(worker=worker, gpu=gpu, hops=min(hops, now))
