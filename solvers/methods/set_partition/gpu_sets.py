"""What a layer's GPUs may hold under dispatch: every set of experts, and what it costs on each GPU."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.replay.replay import homes_of
from solvers.methods.set_partition.kernels import members_of, number_of, sum_subsets, tabulate_subsets
from traces import TokenSample

__all__ = ["GpuSets", "count_sets", "sets_fit"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Costs = npt.NDArray[np.floating[Any]]
CANCELLED = 1e-13  # of a sum of variances, relative; double precision times the hundreds of operations behind a sum
# Costs of a layer that are kept in double precision; 40 MB; above it, single precision, whose rounding the bounds allow
# for.
EXACT = 5_000_000


def sets_fit(problem: Problem) -> str | None:
    """Return why a problem's layers do not fall into sets of experts with a cost of their own; None if they do."""
    objective = problem.objective
    if objective.execution != "dispatch" or objective.dedup == "none":
        return "it counts one message per GPU (execution 'dispatch', dedup 'gpu')."
    if objective.dedup == "node" and problem.topology.num_nodes > 1:
        return "messages to a node depend on all GPUs of the node; it takes one node, or dedup 'gpu'."
    if problem.profile.sample is None:
        return "it counts messages, which needs a trace with tokens."
    if problem.spare_replicas or (problem.capacity != problem.slots_per_gpu).any():
        return "it takes one replica of each expert, as many on each GPU, and no empty slots."
    return None


def count_sets(problem: Problem) -> int:
    """Return how many costs a layer has: sets of experts, times GPUs."""
    return comb(problem.num_experts, int(problem.capacity[0])) * problem.num_gpus


class GpuSets:
    """A layer's sets of experts, as many as a GPU holds, in lexicographic order: n of them.

    A GPU's messages depend on its own experts only: each token that uses any of them is sent to it, from its home. So
    do its load and the variance of its load. The layer's cost is the sum over GPUs, but for the largest load and the
    spread, the root mean square over GPUs. Its mean over GPUs, which is used instead, is never more.

    Parameters
    ----------
    problem : Problem
        One that `sets_fit`.
    layer : int
        Row of the profile.
    sample : TokenSample, optional
        Tokens whose messages count, if not the profile's.
    hop : (G, G) float64, optional
        What a message from home h to GPU g costs, if not the topology's: ones count the fan-out.

    Attributes
    ----------
    size : int
        Experts of a set, C.
    count : int
        Sets, n.
    """

    def __init__(
        self, problem: Problem, layer: int, *, sample: TokenSample | None = None, hop: Array | None = None
    ) -> None:
        self.problem, self.layer = problem, layer
        self.size = int(problem.capacity[0])
        E, G = problem.num_experts, problem.num_gpus
        self.choose = np.array([[comb(e, k) for k in range(self.size + 1)] for e in range(E + 1)], np.int64)
        self.count = comb(E, self.size)
        objective, topology = problem.objective, problem.topology
        sample = problem.profile.sample if sample is None else sample
        assert sample is not None  # sets_fit
        hop = topology.hop_cost if hop is None else hop
        ids = sample.topk_ids[:, layer]
        homes = homes_of(objective, G, sample.rows, sample.seq_id, sample.source_rank)
        tokens, start = _bits(ids, homes, E, G)
        deviations = problem.load_deviations
        own = np.zeros((E, 0)) if deviations is None else deviations[layer]
        variance = np.zeros(self.count if own.shape[1] else 0)
        covariance = np.ascontiguousarray(own @ own.T)
        self.dtype = np.float64 if self.count * G <= EXACT else np.float32
        self._messages = np.zeros((self.count, G), self.dtype)
        tabulate_subsets(tokens, start, hop, covariance, self.size, self._messages, variance)
        active = (sample.topk_ids >= 0).any(axis=2)
        self._unit = objective.traffic_weight / max(1, int(active.sum()))
        self._error = None
        if len(variance):
            # What cancels leaves rounding errors, of which the root is large.
            variance -= CANCELLED * self.size * self.sums(np.diag(covariance))
            self._error = np.sqrt(np.maximum(variance, 0.0))
        self._load = self.sums(problem.relative_load[layer])

    def loads(self, gpu: int) -> Array:
        """Return the load of each set on a GPU, relative to the fair share, (n,)."""
        load: Array = self._load / self.problem.topology.fair_share[gpu]
        return load

    def sums(self, values: npt.NDArray[Any]) -> Array:
        """Return the sum of `values` (E,) over each set, (n,)."""
        total = np.zeros(self.count)
        sum_subsets(np.ascontiguousarray(values, np.float64), self.size, total)
        return total

    def number(self, members: npt.NDArray[np.integer[Any]]) -> Ints:
        """Return the place in the order of sets (k, C), (k,)."""
        result: Ints = number_of(np.sort(members, axis=1).astype(np.int64), self.choose)
        return result

    def members(self, numbers: Ints) -> Ints:
        """Return the experts of sets, (k, C)."""
        result: Ints = members_of(numbers, self.choose)
        return result

    def relative_load(self, numbers: Ints, gpus: Ints) -> Array:
        """Return the loads of sets on GPUs, relative to the fair share, (k,)."""
        load: Array = self._load[numbers] / self.problem.topology.fair_share[gpus]
        return load

    def spread(self, numbers: Ints, gpus: Ints) -> Array:
        """Return what sets on GPUs add to the spread of the layer, averaged over layers and GPUs, (k,)."""
        if self._error is None:
            return np.zeros(len(numbers))
        problem = self.problem
        fair = problem.topology.fair_share[gpus]
        error: Array = self._error[numbers] / fair / problem.num_gpus / problem.num_layers
        return error

    def cost(self, price: float) -> Costs:
        """Return what each set costs on each GPU, (n, G); infinite where a constraint forbids it.

        Parameters
        ----------
        price : float
            Share of the weight of the spread that counts.

        Returns
        -------
        (n, G) float64; float32 where there are many
            Traffic, excess above the load cap and the priced spread, in units of the objective.
        """
        problem, objective, L = self.problem, self.problem.objective, self.problem.num_layers
        caps, fair = problem.load_caps, problem.topology.fair_share
        allowed, pinned = problem.allowed[self.layer], problem.pinned[self.layer]
        allowed = allowed & (pinned | ~pinned.any(axis=1, keepdims=True))
        result: Costs = self._messages * self.dtype(self._unit)
        weight = price * problem.spread_weight / L / problem.num_gpus
        for gpu in range(problem.num_gpus):
            if self._error is not None and weight:
                result[:, gpu] += self._error * (weight / fair[gpu])
            if caps is not None and np.isfinite(caps[self.layer]):
                guarded = self._load if self._error is None else self._load + problem.load_margin * self._error
                excess = np.maximum(guarded / fair[gpu] - caps[self.layer], 0.0)
                result[:, gpu] += excess * (objective.load_excess_weight / L)
            if not allowed[:, gpu].all():
                result[self.sums(~allowed[:, gpu]) > 0, gpu] = np.inf
        return result


def _bits(
    ids: npt.NDArray[np.integer[Any]], homes: npt.NDArray[np.integer[Any]], num_experts: int, num_gpus: int
) -> tuple[npt.NDArray[np.uint64], Ints]:
    """Return a bit per token and expert, tokens by home, (E, W), and the word where each home starts, (G + 1,)."""
    words = -(-np.bincount(homes, minlength=num_gpus) // 64)
    start = np.concatenate([[0], np.cumsum(words)]).astype(np.int64)
    used = np.zeros((num_experts, max(1, int(start[-1])) * 64), np.uint8)
    order = np.argsort(homes, kind="stable")
    first = np.searchsorted(homes[order], np.arange(num_gpus))
    where = np.empty(len(ids), np.int64)
    where[order] = start[homes[order]] * 64 + np.arange(len(ids)) - first[homes[order]]
    token, place = np.nonzero(ids >= 0)
    used[ids[token, place], where[token]] = 1
    return np.packbits(used, axis=1, bitorder="little").view(np.uint64), start
