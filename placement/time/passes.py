"""Forward passes of a stated size, cut from a trace and replayed through a plan, and what they take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.loads.policies import POLICIES
from placement.plan.plan import Plan
from placement.problem.objective import SettledObjective
from placement.replay.kernels.replay import Replicas, Tokens
from placement.replay.replay import DEDUPS, NO_HOMES, homes_of
from placement.time.kernels.passes import RELAYED, PassSums, count_context, count_dispatch
from placement.topology.topology import Topology
from traces import Batch, Trace
from traces.trace import BATCH_TOKENS

__all__ = ["MAX_PASSES", "LayerTimes", "PassLoad", "PassReplay"]

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
MAX_PASSES = 32


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """Times of one pass, or means over passes.

    Attributes
    ----------
    dispatch, combine : (L,) float64
        Milliseconds of the exchanges of each layer.
    experts : (L,) float64
        Milliseconds of the slowest rank.
    rest : float
        Milliseconds per layer of what is neither: attention, router, shared experts.
    gather : float
        Milliseconds per pass of the AllGather of new tokens under context-coherent execution.
    """

    dispatch: Floats
    experts: Floats
    combine: Floats
    rest: float
    gather: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PassLoad:
    """What one forward pass does to every rank.

    Attributes
    ----------
    counts : (L, G, C) int64
        Tokens of each slot.
    rows : (L, G) int64
        Distinct tokens that each rank receives.
    inside, across : (L, G, 2) int64
        Copies that each rank sends and receives within its node, and between nodes.
    tokens : int
        Of all ranks together.
    """

    counts: Counts
    rows: Counts
    inside: Counts
    across: Counts
    tokens: int


class PassReplay:
    """Replays passes through one plan.

    Parameters
    ----------
    plan : Plan
    topology : Topology
    objective : SettledObjective
        How tokens travel.
    relayed : bool
        Whether a copy per expert goes first to the rank of its own node that has the index of the target in its node,
        and then to the target: two all-to-alls, one after the other.
    """

    def __init__(self, plan: Plan, topology: Topology, objective: SettledObjective, *, relayed: bool = False) -> None:
        self.objective, self.topology, self.plan, self.relayed = objective, topology, plan, relayed
        self._slots, counts = slot_table(plan.physical_to_logical_map, plan.num_experts)
        self._replicas = Replicas(
            np.where(self._slots >= 0, self._slots // plan.slots_per_gpu, -1).astype(np.int32),
            counts,
            POLICIES[objective.replica_policy],
            topology.node_of_gpu,
        )

    def loads(self, trace: Trace, tokens: int, most: int = MAX_PASSES) -> Iterator[tuple[PassLoad, float]]:
        """Yield what passes of consecutive tokens do, and what their counts were multiplied by.

        Parameters
        ----------
        trace : Trace
        tokens : int
            Of a pass, all ranks together.
        most : int
            Passes at most, from the beginning; every one is whole. A trace that is shorter than a pass makes a single
            one, scaled up.
        """
        sums, filled, done = self._empty(), 0, 0
        for batch in trace.batches(min(tokens, BATCH_TOKENS)):
            start = 0
            while start < len(batch):
                stop = min(len(batch), start + tokens - filled)
                self._add(batch.select(slice(start, stop)), sums)
                filled, start = filled + stop - start, stop
                if filled == tokens:
                    yield self._finished(sums, tokens, 1.0), 1.0
                    sums, filled, done = self._empty(), 0, done + 1
                    if done == most:
                        return
        if not done and filled:
            yield self._finished(sums, tokens, tokens / filled), tokens / filled

    def sums(self, batch: Batch) -> PassSums:
        """Return what some tokens do; sums of several batches add up to that of all of them."""
        sums = self._empty()
        self._add(batch, sums)
        return sums

    def _empty(self) -> PassSums:
        layers, slots = self.plan.physical_to_logical_map.shape
        gpus = self.topology.num_gpus
        return PassSums(
            np.zeros((layers, slots), np.int64),
            np.zeros((layers, gpus), np.int64),
            np.zeros((layers, gpus, 2), np.int64),
            np.zeros((layers, gpus, 2), np.int64),
        )

    def _add(self, batch: Batch, sums: PassSums) -> None:
        if self.objective.execution == "context_coherent":
            count_context(Tokens(batch.topk_ids, batch.rows, NO_HOMES), self._replicas, self._slots, sums)
            return
        homes = homes_of(self.objective, self.topology.num_gpus, batch.rows, batch.seq_id, batch.source_rank)
        dedup = RELAYED if self.relayed else DEDUPS[self.objective.dedup]
        tokens = Tokens(batch.topk_ids, batch.rows, homes)
        count_dispatch(tokens, self._replicas, self._slots, dedup, self.topology.entry_gpu, sums)

    def _finished(self, sums: PassSums, tokens: int, scale: float) -> PassLoad:
        scaled = [part if scale == 1 else np.rint(part * scale).astype(np.int64) for part in sums]
        layers, gpus = sums.rows.shape
        return PassLoad(
            counts=scaled[0].reshape(layers, gpus, -1),
            rows=scaled[1],
            inside=scaled[2],
            across=scaled[3],
            tokens=tokens,
        )


def slot_table(table: npt.NDArray[np.integer[Any]], num_experts: int) -> tuple[npt.NDArray[np.int32], Counts]:
    """Return the slots of each expert's replicas in rising order, (L, E, M) int32, and their number, (L, E) int64."""
    layer, slot = np.nonzero(table >= 0)
    expert = table[layer, slot].astype(np.int64)
    counts = np.zeros((len(table), num_experts), np.int64)
    np.add.at(counts, (layer, expert), 1)
    slots = np.full((len(table), num_experts, int(counts.max(initial=1))), -1, np.int32)
    key = layer * num_experts + expert
    order = np.argsort(key, kind="stable")
    first = np.concatenate([[0], np.cumsum(counts.ravel())[:-1]])
    slots[layer[order], expert[order], np.arange(len(order)) - first[key[order]]] = slot[order]
    return slots, counts
