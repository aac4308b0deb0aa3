"""Where a plan's score comes from: layers, flows between GPUs, experts, pairs of experts, replicas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.cost.bounds import least_traffic_by_layer
from placement.cost.sample import replay_sample
from placement.cost.score import Score, score
from placement.cost.shares import assignments_by_home, expected_gpu_load, expected_share, guarded_gpu_load, load_spread
from placement.plan.plan import Plan, replicas_on_gpu
from placement.problem.problem import Problem
from traces.support.content import ByContent

__all__ = ["Breakdown", "CostlyExpert", "CostlyPair", "HotReplica", "break_down"]

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class CostlyExpert:
    """An expert, and the part of the traffic term that it has a part in; a pair counts at both of its experts."""

    layer: int
    expert: int
    gpus: tuple[int, ...]
    traffic: float


@dataclass(frozen=True, kw_only=True)
class CostlyPair:
    """Experts of two consecutive layers, and what the tokens that use both add to the traffic term."""

    layer: int
    expert: int
    next_expert: int
    traffic: float


@dataclass(frozen=True, kw_only=True)
class HotReplica:
    """An expert on a GPU, and the load that it brings there, relative to the GPU's fair share of the layer's load."""

    layer: int
    expert: int
    gpu: int
    load: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Breakdown(ByContent):
    """A score, taken apart. Rows of traffic are boundaries l, l+1 (context_coherent) or layers (dispatch).

    Attributes
    ----------
    score : Score
    flow : (L-1, G, G) or (L, G, G) float64
        From GPU to GPU, in the unit of the traffic term but for the hop costs: times these it adds up to
        `Score.traffic_by_layer`. What stays is on the diagonal.
    least_traffic : (L-1,) or (L,) float64
        What no plan goes below; see `placement.cost.bounds.least_traffic_by_layer`.
    load : (L, G) float64
        Expected, relative to fair shares.
    load_excess, load_spread : (L,) float64
        Load above the cap, summed over GPUs; standard error of a GPU's load. Their means over layers are in the score.
    experts : tuple of CostlyExpert
        The costliest first; none where a message stands for several experts (dispatch with deduplication).
    pairs : tuple of CostlyPair
        The costliest first; context_coherent only.
    replicas : tuple of HotReplica
        The hottest first.
    """

    score: Score
    flow: Array
    least_traffic: Array
    load: Array
    load_excess: Array
    load_spread: Array
    experts: tuple[CostlyExpert, ...]
    pairs: tuple[CostlyPair, ...]
    replicas: tuple[HotReplica, ...]

    def __repr__(self) -> str:
        named = f"{len(self.experts)} experts, {len(self.pairs)} pairs, {len(self.replicas)} replicas"
        return (
            f"Breakdown of {self.flow.shape[0]} rows of traffic and {len(self.load)} of loads; {named}\n{self.score!r}"
        )


def break_down(problem: Problem, plan: Plan | npt.NDArray[np.integer[Any]], top: int = 20) -> Breakdown:
    """Take the score of a map apart.

    Parameters
    ----------
    problem : Problem
    plan : Plan or (L, S) integers
        A plan of the problem's sizes, or its physical-to-logical map with every expert present; -1 empty.
    top : int
        Most experts, pairs and replicas to name.
    """
    table = problem.table_of(plan)
    objective, caps = problem.objective, problem.load_caps
    replicas = replicas_on_gpu(table, problem.num_experts, problem.num_gpus)
    pairs: list[CostlyPair] = []
    by_expert = np.zeros(replicas.shape[:2])
    if objective.execution == "context_coherent":
        flow = _pair_flow(problem, replicas)
        for layer, cost in enumerate(_pair_costs(problem, replicas)):
            by_expert[layer] += cost.sum(axis=1)
            by_expert[layer + 1] += cost.sum(axis=0)
            pairs = sorted([*pairs, *_costly_pairs(cost, layer, top)], key=lambda pair: -pair.traffic)[:top]
    elif objective.dedup == "none":
        flow = np.zeros((problem.num_layers, problem.num_gpus, problem.num_gpus))
        for home, assigned in enumerate(assignments_by_home(problem, replicas)):
            flow[:, home] = assigned.sum(axis=1)
            by_expert += assigned @ problem.topology.hop_cost[home]
    else:
        replay = replay_sample(problem, table)
        flow = replay.traffic / max(int(replay.fanout[:, 2].sum()), 1)
    excess = np.zeros(problem.num_layers)
    if caps is not None:
        excess = np.maximum(guarded_gpu_load(problem, replicas) - caps[:, None], 0).sum(axis=1)
    return Breakdown(
        score=score(problem, table),
        flow=flow,
        least_traffic=least_traffic_by_layer(problem),
        load=expected_gpu_load(problem, replicas),
        load_excess=excess,
        load_spread=load_spread(problem, replicas),
        experts=_costly_experts(by_expert, replicas, top),
        pairs=tuple(pairs),
        replicas=_hot_replicas(problem, replicas, top),
    )


def _shares(replicas: Counts) -> Array:
    share: Array = replicas / replicas.sum(axis=2, keepdims=True)
    return share


def _pair_flow(problem: Problem, replicas: Counts) -> Array:
    """Return ``sum_ij A[l,i,j] Q[l,i,g] Q[l+1,j,h]`` over the whole pair weight, (L-1, G, G)."""
    affinity, share = problem.profile.affinity, _shares(replicas)
    assert affinity is not None
    flow = np.zeros((len(affinity), problem.num_gpus, problem.num_gpus))
    for layer, counts in enumerate(affinity):
        flow[layer] = share[layer].T @ counts.astype(np.float64) @ share[layer + 1]
    return flow / max(problem.pair_weight, 1.0)


def _pair_costs(problem: Problem, replicas: Counts) -> Iterator[Array]:
    """Yield, boundary by boundary, what each pair of experts adds to the traffic term, (E, E)."""
    affinity, share, hop = problem.profile.affinity, _shares(replicas), problem.topology.hop_cost
    assert affinity is not None
    for layer, counts in enumerate(affinity):
        yield counts * (share[layer] @ hop @ share[layer + 1].T) / max(problem.pair_weight, 1.0)


def _largest(values: Array, top: int) -> npt.NDArray[np.int64]:
    """Return the flat positions of the largest values above 0, the largest first."""
    flat = values.ravel()
    kept = np.arange(flat.size) if flat.size <= top else np.sort(np.argpartition(-flat, top - 1)[:top])
    kept = kept[flat[kept] > 0]
    return kept[np.argsort(-flat[kept], kind="stable")]


def _costly_pairs(cost: Array, layer: int, top: int) -> list[CostlyPair]:
    places = np.stack(np.unravel_index(_largest(cost, top), cost.shape), axis=1)
    return [CostlyPair(layer=layer, expert=int(i), next_expert=int(j), traffic=float(cost[i, j])) for i, j in places]


def _costly_experts(cost: Array, replicas: Counts, top: int) -> tuple[CostlyExpert, ...]:
    places = np.stack(np.unravel_index(_largest(cost, top), cost.shape), axis=1)
    return tuple(
        CostlyExpert(
            layer=int(layer),
            expert=int(expert),
            gpus=tuple(np.flatnonzero(replicas[layer, expert]).tolist()),
            traffic=float(cost[layer, expert]),
        )
        for layer, expert in places
    )


def _hot_replicas(problem: Problem, replicas: Counts, top: int) -> tuple[HotReplica, ...]:
    load = problem.relative_load[:, :, None] * expected_share(problem, replicas) / problem.topology.fair_share
    places = np.stack(np.unravel_index(_largest(load, top), load.shape), axis=1)
    return tuple(
        HotReplica(layer=int(layer), expert=int(expert), gpu=int(gpu), load=float(load[layer, expert, gpu]))
        for layer, expert, gpu in places
    )
