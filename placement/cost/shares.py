"""Expected loads: which share of each expert's tokens its replicas serve, and what that makes of the GPUs' loads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from placement.loads.kernels.homes import add_group_variance, add_home_variance
from placement.loads.policies import POLICIES, replica_share
from placement.problem.problem import Problem
from traces.support.parallel import map_threads

__all__ = [
    "assignments_by_home",
    "expected_gpu_load",
    "expected_share",
    "guarded_gpu_load",
    "home_share",
    "home_variance",
    "load_spread",
    "load_variance",
    "shares_by_home",
]

Array = npt.NDArray[np.float64]
TOGETHER = 1 << 18  # shares that a thread computes at once: what numpy makes on the way stays in the cache


def home_share(problem: Problem) -> Array | None:
    """Return the share of each expert's tokens by home GPU, (L, E, G); None for equal shares."""
    source = problem.profile.source_load
    if problem.objective.ownership != "measured" or problem.objective.execution != "dispatch" or source is None:
        return None
    counts = np.zeros((problem.num_layers, problem.num_experts, problem.num_gpus))
    counts[:, :, : len(source)] = source.transpose(1, 2, 0)
    total = counts.sum(axis=2, keepdims=True)
    share: Array = np.divide(counts, total, out=np.full(counts.shape, 1 / problem.num_gpus), where=total > 0)
    return share


def expected_gpu_load(problem: Problem, replicas: npt.NDArray[np.int64], share: Array | None = None) -> Array:
    """Return the load of each GPU relative to its fair share, (L, G); 1 is balanced.

    Here and below, `share` is what `expected_share` returns, where that is known.
    """
    share = expected_share(problem, replicas) if share is None else share
    load = np.einsum("le,leg->lg", problem.relative_load, share)
    relative: Array = load / problem.topology.fair_share
    return relative


def expected_share(problem: Problem, replicas: npt.NDArray[np.int64]) -> Array:
    """Return each expert's share of tokens per GPU under the problem's replica policy and ownership, (L, E, G)."""
    policy, node, homes = problem.objective.replica_policy, problem.topology.node_of_gpu, home_share(problem)
    step = max(1, TOGETHER // (problem.num_experts * problem.num_gpus))
    if step >= len(replicas):
        return replica_share(replicas, policy, node, homes)
    share: Array = np.empty(replicas.shape)

    def fill(first: int) -> None:
        some = slice(first, first + step)
        share[some] = replica_share(replicas[some], policy, node, None if homes is None else homes[some])

    map_threads(fill, range(0, len(replicas), step))
    return share


def guarded_gpu_load(problem: Problem, replicas: npt.NDArray[np.int64], share: Array | None = None) -> Array:
    """Return the load that the cap is held against, relative to fair shares, (L, G).

    The expected load; with a load quantile, plus as many standard errors as the quantile of a normal distribution is
    above its mean.
    """
    share = expected_share(problem, replicas) if share is None else share
    load = expected_gpu_load(problem, replicas, share)
    if not problem.load_margin:
        return load
    guarded: Array = load + problem.load_margin * np.sqrt(load_variance(problem, replicas, share))
    return guarded


def load_variance(problem: Problem, replicas: npt.NDArray[np.int64], share: Array | None = None) -> Array:
    """Return the square of the standard error of each GPU's load, relative to its fair share, (L, G).

    That of the experts' loads, and that of the homes of sequences. Either is 0 where the problem has no use for it, or
    the profile does not know it (`Problem.load_deviations`, `Problem.home_moments`).
    """
    variance = home_variance(problem, replicas)
    deviations = problem.load_deviations
    if deviations is not None:
        known = expected_share(problem, replicas) if share is None else share
        for layer, of_layer in enumerate(known):
            add_group_variance(of_layer, problem.topology.fair_share, deviations[layer], variance[layer])
    return variance


def home_variance(problem: Problem, replicas: npt.NDArray[np.int64]) -> Array:
    """Return the variance of each GPU's load by the homes of sequences, relative to its fair share squared, (L, G).

    A sequence whose home is near a replica takes its whole load there: with shares ``q[h]`` of the experts' tokens on a
    GPU for home h, the sum over sequences s of the variance of ``y[s]' q[h]`` over h, any home as likely as another.
    """
    variance, moments = np.zeros((problem.num_layers, problem.num_gpus)), problem.home_moments
    if moments is None:
        return variance
    policy, topology = POLICIES[problem.objective.replica_policy], problem.topology
    for layer, here in enumerate(replicas):
        add_home_variance(here, policy, topology.node_of_gpu, topology.fair_share, moments[layer], variance[layer])
    return variance


def shares_by_home(problem: Problem, replicas: npt.NDArray[np.int64]) -> Array:
    """Return the share of tokens on each GPU for each home h, (G, n, G), of n experts with replicas (n, G)."""
    G = problem.num_gpus
    at_home = np.broadcast_to(np.eye(G)[:, None], (G, *replicas.shape))
    policy, node = problem.objective.replica_policy, problem.topology.node_of_gpu
    return replica_share(np.broadcast_to(replicas, at_home.shape), policy, node, at_home)


def load_spread(problem: Problem, replicas: npt.NDArray[np.int64], share: Array | None = None) -> Array:
    """Return the standard error of a GPU's load in each layer (root mean square over GPUs), in mean GPU loads, (L,)."""
    spread: Array = np.sqrt(load_variance(problem, replicas, share).mean(axis=1))
    return spread


def assignments_by_home(problem: Problem, replicas: npt.NDArray[np.int64]) -> Iterator[Array]:
    """Yield, for each home GPU in turn, the share of all assignments with this home, an expert and a GPU, (L, E, G).

    In expectation; over all homes, layers, experts and GPUs the shares add up to 1.
    """
    load = problem.profile.load
    homes = home_share(problem)
    policy, node = problem.objective.replica_policy, problem.topology.node_of_gpu
    total = float(load.sum())
    for home in range(problem.num_gpus):
        at_home = np.zeros(replicas.shape)
        at_home[:, :, home] = 1
        weight = load / problem.num_gpus if homes is None else load * homes[:, :, home]
        yield (weight / total)[:, :, None] * replica_share(replicas, policy, node, at_home)
