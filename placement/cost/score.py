"""The one cost function: the objective's terms for a plan, from the profile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from placement.cost.kernels.traffic import pair_traffic
from placement.loads.kernels.homes import add_home_variance
from placement.plan.plan import replicas_on_gpu
from placement.problem.problem import Problem
from placement.replay.activation import activated_experts
from placement.replay.replay import POLICIES, Replay
from traces.support.parallel import available_cores, map_threads

__all__ = [
    "Score",
    "Term",
    "assignments_by_home",
    "expected_gpu_load",
    "expected_share",
    "guarded_gpu_load",
    "home_variance",
    "load_spread",
    "replay_sample",
    "replica_share",
    "score",
    "shares_by_home",
]

Array = npt.NDArray[np.float64]
THREADED_CELLS = 1_000_000  # assignments of a sample from which on its replay takes longer than threads to start


@dataclass(frozen=True, kw_only=True)
class Term:
    """A named part of the objective; ``weight * value`` counts."""

    name: str
    value: float
    weight: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class Score:
    """Value of a plan under a problem's objective.

    Attributes
    ----------
    total : float
        Sum of ``weight * value`` over the terms.
    terms : tuple of Term
        traffic, imbalance, load_excess, load_spread; activated, if it has a weight.
    traffic_by_layer : (L-1,) or (L,) float64
        Contributions to the traffic term; they add up to it.
    max_load : (L,) float64
        Largest GPU load of each layer, relative to the GPU's fair share.
    """

    total: float
    terms: tuple[Term, ...]
    traffic_by_layer: Array
    max_load: Array


def replica_share(
    replicas: npt.NDArray[np.int64], policy: str, node_of_gpu: npt.NDArray[np.int64], homes: Array | None
) -> Array:
    """Return the expected share of each expert's tokens on each GPU, (L, E, G).

    Parameters
    ----------
    replicas : (L, E, G) int64
        Replicas of e on g.
    policy : {"fair", "same_gpu", "same_node"}
    node_of_gpu : (G,) int64
    homes : (L, E, G) float64 or None
        Share of e's tokens whose home is g; None for equal shares.
    """
    fair: Array = replicas / replicas.sum(axis=2, keepdims=True)
    if policy == "fair":
        return fair
    home = np.full(replicas.shape, 1 / replicas.shape[2]) if homes is None else homes
    here = replicas > 0
    share: Array = np.where(here, home, 0.0)
    rest = np.where(here, 0.0, home)  # tokens whose own GPU has no replica
    if policy == "same_node":
        starts = np.flatnonzero(np.r_[True, np.diff(node_of_gpu) != 0])
        on_node = np.add.reduceat(replicas, starts, axis=2)
        of_node = np.add.reduceat(rest, starts, axis=2)
        per_replica = np.divide(of_node, on_node, out=np.zeros(of_node.shape), where=on_node > 0)
        share += replicas * per_replica[:, :, node_of_gpu]
        far = np.where(on_node > 0, 0.0, of_node).sum(axis=2)
    else:
        far = rest.sum(axis=2)
    share += fair * far[:, :, None]
    return share


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


def expected_gpu_load(problem: Problem, replicas: npt.NDArray[np.int64]) -> Array:
    """Return the load of each GPU relative to its fair share, (L, G); 1 is balanced."""
    load = np.einsum("le,leg->lg", problem.relative_load, expected_share(problem, replicas))
    relative: Array = load / problem.topology.fair_share
    return relative


def expected_share(problem: Problem, replicas: npt.NDArray[np.int64]) -> Array:
    """Return each expert's share of tokens per GPU under the problem's replica policy and ownership, (L, E, G)."""
    return replica_share(replicas, problem.objective.replica_policy, problem.topology.node_of_gpu, home_share(problem))


def guarded_gpu_load(problem: Problem, replicas: npt.NDArray[np.int64]) -> Array:
    """Return the load that the cap is held against, relative to fair shares, (L, G).

    The expected load; with a load quantile, plus as many standard errors as the quantile of a normal distribution is
    above its mean.
    """
    load = expected_gpu_load(problem, replicas)
    if not problem.load_margin:
        return load
    guarded: Array = load + problem.load_margin * np.sqrt(load_variance(problem, replicas))
    return guarded


def load_variance(problem: Problem, replicas: npt.NDArray[np.int64]) -> Array:
    """Return the square of the standard error of each GPU's load, relative to its fair share, (L, G).

    That of the experts' loads, and that of the homes of sequences. Either is 0 where the problem has no use for it, or
    the profile does not know it (`Problem.load_deviations`, `Problem.home_moments`).
    """
    variance = home_variance(problem, replicas)
    deviations = problem.load_deviations
    if deviations is not None:
        share = expected_share(problem, replicas) / problem.topology.fair_share
        variance += ((share.transpose(0, 2, 1) @ deviations) ** 2).sum(axis=2)
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


def load_spread(problem: Problem, replicas: npt.NDArray[np.int64]) -> Array:
    """Return the standard error of a GPU's load in each layer (root mean square over GPUs), in mean GPU loads, (L,)."""
    spread: Array = np.sqrt(load_variance(problem, replicas).mean(axis=1))
    return spread


def score(problem: Problem, table: npt.NDArray[np.integer]) -> Score:
    """Score a map.

    Parameters
    ----------
    problem : Problem
    table : (L, S) integers
        Physical-to-logical map with every expert present; -1 empty.

    Returns
    -------
    Score
    """
    objective, weights = problem.objective, problem.objective
    replicas = replicas_on_gpu(table, problem.num_experts, problem.num_gpus)
    relative = expected_gpu_load(problem, replicas)
    max_load = relative.max(axis=1)
    imbalance = float(max_load.mean() - 1)
    caps = problem.load_caps
    excess = 0.0
    if caps is not None:
        excess = float(np.maximum(guarded_gpu_load(problem, replicas) - caps[:, None], 0).sum(axis=1).mean())
    by_layer = np.zeros(problem.num_layers)
    if weights.traffic_weight:
        if objective.execution == "context_coherent":
            by_layer = _pair_traffic(problem, replicas)
        elif objective.dedup == "none":
            by_layer = _assignment_traffic(problem, replicas)
        else:
            by_layer = _message_traffic(problem, table)
    traffic = float(by_layer.sum())
    spread = max(0.0, float(load_spread(problem, replicas).mean()) - problem.spread_tolerance)
    terms: tuple[Term, ...] = (
        Term(name="traffic", value=traffic, weight=weights.traffic_weight, unit=objective.traffic_unit),
        Term(
            name="imbalance",
            value=imbalance,
            weight=weights.imbalance_weight,
            unit="max/mean load - 1, mean over layers",
        ),
        Term(
            name="load_excess",
            value=excess,
            weight=weights.load_excess_weight,
            unit="mean GPU loads above the cap, mean over layers",
        ),
        Term(
            name="load_spread",
            value=spread,
            weight=problem.spread_weight,
            unit="standard error of a GPU's load, mean over layers, above the tolerance, in mean GPU loads",
        ),
    )
    if weights.activated_weight:
        terms += (
            Term(
                name="activated",
                value=_activated(problem, table),
                weight=weights.activated_weight,
                unit="experts with tokens on the GPU that has most, mean over batches and layers",
            ),
        )
    return Score(
        total=sum(term.weight * term.value for term in terms), terms=terms, traffic_by_layer=by_layer, max_load=max_load
    )


def _activated(problem: Problem, table: npt.NDArray[np.integer]) -> float:
    """Return the most experts with tokens on a GPU, mean over layers and batches of the profile's sample."""
    sample, objective = problem.profile.sample, problem.objective
    assert sample is not None
    most = activated_experts(
        table, problem.num_experts, problem.slots_per_gpu, sample, problem.topology, objective, objective.decode_batch
    )
    return float(most.mean())


def _pair_traffic(problem: Problem, replicas: npt.NDArray[np.int64]) -> Array:
    """Context-coherent: ``sum_ij A[l,i,j] sum_gh Q[l,i,g] Q[l+1,j,h] d[g,h]`` over the whole pair weight."""
    affinity = problem.profile.affinity
    assert affinity is not None
    by_layer = np.zeros(len(affinity))
    share: Array = replicas / replicas.sum(axis=2, keepdims=True)
    pair_traffic(affinity, share, problem.topology.hop_cost, by_layer)
    return by_layer / max(problem.pair_weight, 1.0)


def _assignment_traffic(problem: Problem, replicas: npt.NDArray[np.int64]) -> Array:
    """Dispatch without deduplication, in expectation over the homes: needs loads only."""
    by_layer = np.zeros(problem.num_layers)
    for hop, assigned in zip(problem.topology.hop_cost, assignments_by_home(problem, replicas), strict=True):
        by_layer += np.einsum("leg,g->l", assigned, hop)
    return by_layer


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


def _message_traffic(problem: Problem, table: npt.NDArray[np.integer]) -> Array:
    """Dispatch with one message per GPU or node: replay of the profile's sample of tokens."""
    replay = replay_sample(problem, table)
    active = replay.fanout[:, 2].sum()
    cost: Array = (replay.traffic * problem.topology.hop_cost).sum(axis=(1, 2)) / max(int(active), 1)
    return cost


def replay_sample(problem: Problem, table: npt.NDArray[np.integer]) -> Replay:
    """Replay the profile's sample of tokens through a map (L, S), under the problem's objective."""
    sample = problem.profile.sample
    assert sample is not None
    replay = Replay.of(table, problem.num_experts, problem.slots_per_gpu, problem.topology, problem.objective)
    size = sample.topk_ids.size

    def add(tokens: slice) -> Replay:
        part = replay.fork()
        part.add(sample.topk_ids[tokens], sample.rows[tokens], sample.seq_id[tokens], sample.source_rank[tokens])
        return part

    # Counts are whole numbers: they add up to the same, however many threads there are.
    threads = available_cores() if size >= THREADED_CELLS else 1
    bounds = np.linspace(0, len(sample.rows), threads + 1).astype(int)
    for part in map_threads(add, [slice(a, b) for a, b in pairwise(bounds)]):
        replay.join(part)
    return replay
