"""Alternating: experts to GPUs for a grouping, requests to GPUs for a plan, until neither gains.

The cost is the objective's: hops per assignment, and the largest load of a GPU over its fair share with its weight.
Loads are of all requests together, so that they depend on where experts are, not on where requests are.

References
----------
ELDR (arXiv 2607.00466) groups requests by what they use and sends each group to a worker; Sem-MoE plans experts and
requests together. Requests are an assignment problem (Kuhn 1955), and so are experts where loads have no weight; where
they have one, swaps of two experts start from several plans, that of the last step being one: no step makes it worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from placement import Problem
from solvers.grouping.kernels import swapped_down
from solvers.searching.kernels.random import seeded

__all__ = ["Grouping", "cost_of", "grouped", "hops_to_gpus", "imbalance_of", "on_gpus", "placed", "together"]

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
    cost : float
        See `cost_of`.
    """

    worker: Ints
    gpu: Ints
    hops: float
    cost: float


def on_gpus(load: Floats, gpu: Ints, gpus: int) -> Floats:
    """Return what is on each GPU, (N, L, G), of loads (N, L, E) and the GPUs of experts (L, E)."""
    found = np.empty((*load.shape[:2], gpus))
    for layer, place in enumerate(gpu):
        found[:, layer] = load[:, layer] @ (place[:, None] == np.arange(gpus))
    return found


def imbalance_of(problem: Problem, on_gpu: Floats) -> Floats:
    """Return the largest GPU load over its fair share, mean over layers, (N,), of loads (N, L, G)."""
    total = on_gpu.sum(axis=2)
    relative = (
        on_gpu / np.where(total > 0, total, 1.0)[:, :, None] / np.asarray(problem.topology.fair_share, np.float64)
    )
    imbalance: Floats = np.where(total > 0, relative.max(axis=2), 1.0).mean(axis=1)
    return imbalance


def cost_of(problem: Problem, hops: Floats | float, total: Floats | float, imbalance: Floats | float) -> Any:
    """Return what is minimised: the objective's traffic and imbalance, each with its weight.

    Parameters
    ----------
    problem : Problem
    hops : (...) float64
        Hop cost of all uses.
    total : (...) float64
        Uses.
    imbalance : (...) float64
        Largest GPU load over the fair share, mean over layers.
    """
    weights = problem.objective
    return weights.traffic_weight * hops / total + weights.imbalance_weight * (imbalance - 1)


def hops_to_gpus(problem: Problem, uses: Floats, gpu: Ints) -> Floats:
    """Return what each request's uses cost on each GPU, (R, G), for experts on GPUs, (L, E)."""
    hop = problem.topology.hop_cost  # from home to expert
    cost: Floats = uses.reshape(len(uses), -1) @ hop.T[gpu].reshape(-1, problem.num_gpus)
    return cost


def placed(problem: Problem, uses: Floats, worker: Ints, last: Ints | None = None) -> Ints:
    """Return where to place experts, (L, E), for requests on GPUs: exact where loads have no weight.

    Parameters
    ----------
    problem : Problem
    uses : (R, L, E) float64
    worker : (R,) int64
    last : (L, E) int64, optional
        A placement; the result costs no more.
    """
    gpus, layers, experts = problem.num_gpus, *uses.shape[1:]
    slot_gpu = np.repeat(np.arange(gpus), problem.capacity)
    fair = np.asarray(problem.topology.fair_share, np.float64)
    from_gpu = np.zeros((gpus, layers, experts))
    np.add.at(from_gpu, worker, uses)
    total, load = float(uses.sum()), _shares(uses.sum(axis=0))
    weight = problem.objective.imbalance_weight / layers
    found = np.empty((layers, experts), np.int64)
    for layer in range(layers):
        cost = np.zeros((len(slot_gpu), gpus))  # of what is empty, too
        cost[:experts] = from_gpu[:, layer].T @ problem.topology.hop_cost / total
        _, slot = linear_sum_assignment(cost[:experts, slot_gpu])
        if not weight:
            found[layer] = slot_gpu[slot]
            continue
        item_load = np.zeros(len(slot_gpu))
        item_load[:experts] = load[layer]
        starts = [slot_gpu[slot], _even(load[layer], problem.capacity, fair)]
        starts += [] if last is None else [last[layer]]
        tried = []
        for start in starts:
            gpu = _with_empty(start, problem.capacity)
            tried.append((swapped_down(cost, item_load, fair, weight, gpu, seeded(layer)), gpu[:experts]))
        found[layer] = min(tried, key=lambda each: each[0])[1]
    return found


def _shares(load: Floats) -> Floats:
    total = load.sum(axis=1, keepdims=True)
    shares: Floats = np.divide(load, total, out=np.zeros(load.shape), where=total > 0)
    return shares


def _even(load: Floats, capacity: npt.NDArray[np.int64], fair: Floats) -> Ints:
    """Return GPUs of experts, (E,), the largest load first, each where it makes the least largest load."""
    left, relative = np.array(capacity), np.zeros(len(fair))
    found = np.empty(len(load), np.int64)
    for expert in np.argsort(-load, kind="stable"):
        after = np.where(left > 0, relative + load[expert] / fair, np.inf)
        gpu = int(after.argmin())
        found[expert], relative[gpu] = gpu, after[gpu]
        left[gpu] -= 1
    return found


def _with_empty(gpu: Ints, capacity: npt.NDArray[np.int64]) -> Ints:
    """Return the GPUs of experts, and of what is empty after them, (S,)."""
    left = np.asarray(capacity) - np.bincount(gpu, minlength=len(capacity))
    return np.concatenate([gpu, np.repeat(np.arange(len(capacity)), left)]).astype(np.int64)


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
    return min(found, key=lambda each: each.cost)


def _alternated(problem: Problem, uses: Floats, per_gpu: int, worker: Ints) -> Grouping:
    total, load = float(uses.sum()), uses.sum(axis=0, keepdims=True)
    gpu = placed(problem, uses, worker)
    best: Grouping | None = None
    for _ in range(MOST_STEPS):
        worker = grouped(problem, uses, gpu, per_gpu)
        gpu = placed(problem, uses, worker, gpu)
        hops = float(hops_to_gpus(problem, uses, gpu)[np.arange(len(uses)), worker].sum())
        [imbalance] = imbalance_of(problem, on_gpus(load, gpu, problem.num_gpus))
        cost = float(cost_of(problem, hops, total, imbalance))
        if best is not None and cost >= best.cost * (1 - ENOUGH):
            break
        best = Grouping(worker=worker, gpu=gpu, hops=hops, cost=cost)
    assert best is not None
    return best
