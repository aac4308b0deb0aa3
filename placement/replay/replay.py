"""Replaying tokens through a plan: the shared ground of `cost` (on a sample) and `evaluate` (on a whole trace)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.loads.policies import POLICIES
from placement.problem.objective import SettledObjective
from placement.replay.kernels import replay as kernels
from placement.replay.kernels.choosing import home_ranks
from placement.topology.topology import Topology
from traces import InputError

__all__ = ["POLICIES", "Replay", "homes_of", "replica_table"]

Counts = npt.NDArray[np.int64]
NO_HOMES = np.empty(0, np.int32)
DEDUPS = {"none": kernels.DEDUP_NONE, "gpu": kernels.DEDUP_GPU, "node": kernels.DEDUP_NODE}


def replica_table(
    table: npt.NDArray[np.integer], num_experts: int, slots_per_gpu: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return the GPUs of each expert's replicas in slot order, (L, E, M) int32, and their number, (L, E) int64."""
    layers = len(table)
    layer, slot = np.nonzero(table >= 0)
    expert = table[layer, slot].astype(np.int64)
    counts = np.zeros((layers, num_experts), np.int64)
    np.add.at(counts, (layer, expert), 1)
    gpus = np.full((layers, num_experts, int(counts.max(initial=1))), -1, np.int32)
    key = layer * num_experts + expert
    order = np.argsort(key, kind="stable")
    first = np.concatenate([[0], np.cumsum(counts.ravel())[:-1]])
    position = np.arange(len(order)) - first[key[order]]
    gpus[layer[order], expert[order], position] = slot[order] // slots_per_gpu
    return gpus, counts


def homes_of(
    objective: SettledObjective,
    num_gpus: int,
    rows: npt.NDArray[np.int64],
    seq_id: npt.NDArray[np.integer] | None,
    source_rank: npt.NDArray[np.integer] | None,
) -> npt.NDArray[np.int32]:
    """Return the home rank of each token, (T,) int32, under the objective's ownership."""
    if objective.ownership == "token":
        return home_ranks(rows, num_gpus)
    column = seq_id if objective.ownership == "sequence" else source_rank
    name = "seq_id" if objective.ownership == "sequence" else "source_rank"
    if column is None or (len(column) and column.min() < 0):
        raise InputError.of(
            f"no_{name}",
            "/objective/ownership",
            f"Ownership {objective.ownership!r} needs {name} on every token.",
            "Use 'token'.",
        )
    if objective.ownership == "sequence":
        return home_ranks(column.astype(np.int64), num_gpus)
    if len(column) and column.max() >= num_gpus:
        raise InputError.of(
            "source_rank_range",
            "/objective/ownership",
            f"Source rank {column.max()} is not one of {num_gpus} GPUs.",
            "Use ownership 'token', or a topology with as many GPUs as the trace has ranks.",
        )
    return column.astype(np.int32)


@dataclass
class Replay:
    """Accumulates what tokens do under a plan.

    Attributes
    ----------
    traffic : (L or L-1, G, G) int64
        Messages (dispatch) or inter-layer pairs (context_coherent) from GPU to GPU.
    load : (L, G) int64
        Expert assignments per GPU.
    fanout : (L, 3) int64
        Sums of distinct GPUs and distinct nodes, and tokens with an expert.
    away : (L, 4) int64
        Dispatch only: assignments off the home GPU, off the home node; distinct remote GPUs, distinct remote nodes.
    tokens : int
    """

    objective: SettledObjective
    topology: Topology
    replica_gpus: npt.NDArray[np.int32]
    replica_counts: Counts
    traffic: Counts
    load: Counts
    fanout: Counts
    away: Counts
    tokens: int = 0

    @classmethod
    def of(
        cls,
        table: npt.NDArray[np.integer],
        num_experts: int,
        slots_per_gpu: int,
        topology: Topology,
        objective: SettledObjective,
    ) -> Replay:
        """Prepare the replay of the map `table` (L, S)."""
        gpus, counts = replica_table(table, num_experts, slots_per_gpu)
        layers, G = len(table), topology.num_gpus
        boundaries = layers - 1 if objective.execution == "context_coherent" else layers
        return cls(
            objective=objective,
            topology=topology,
            replica_gpus=gpus,
            replica_counts=counts,
            traffic=np.zeros((boundaries, G, G), np.int64),
            load=np.zeros((layers, G), np.int64),
            fanout=np.zeros((layers, 3), np.int64),
            away=np.zeros((layers, 4), np.int64),
        )

    def fork(self) -> Replay:
        """Return an empty replay of the same plan, for another thread."""
        # Not zeros_like, which writes every page: most of a large machine's matrices are never touched.
        zeros: dict[str, Any] = {
            name: np.zeros(getattr(self, name).shape, np.int64) for name in ("traffic", "load", "fanout", "away")
        }
        return Replay(
            objective=self.objective,
            topology=self.topology,
            replica_gpus=self.replica_gpus,
            replica_counts=self.replica_counts,
            **zeros,
        )

    def join(self, other: Replay) -> None:
        """Add what another thread has replayed."""
        for name in ("traffic", "load", "fanout", "away"):
            getattr(self, name).__iadd__(getattr(other, name))
        self.tokens += other.tokens

    def add(
        self,
        ids: npt.NDArray[np.integer],
        rows: npt.NDArray[np.int64],
        seq_id: npt.NDArray[np.integer] | None,
        source_rank: npt.NDArray[np.integer] | None,
        bounds: npt.NDArray[np.int64] | None = None,
    ) -> npt.NDArray[np.int32]:
        """Replay tokens `ids` (T, L, K), and return the load of each cell of them, (C, L, G).

        Parameters
        ----------
        bounds : (C + 1,) int64, optional
            Where cells begin and end, from 0 to T; by default all tokens are one.
        """
        ends = np.array([0, len(ids)]) if bounds is None else bounds
        of_token = np.repeat(np.arange(len(ends) - 1, dtype=np.int32), np.diff(ends))
        cells = kernels.Cells(of_token, np.zeros((len(ends) - 1, *self.load.shape), np.int32))
        replicas = kernels.Replicas(
            self.replica_gpus, self.replica_counts, POLICIES[self.objective.replica_policy], self.topology.node_of_gpu
        )
        sums = kernels.Sums(self.traffic, self.fanout, self.away)
        if self.objective.execution == "context_coherent":
            kernels.replay_context(kernels.Tokens(ids, rows, NO_HOMES), replicas, sums, cells)
        else:
            homes = homes_of(self.objective, self.topology.num_gpus, rows, seq_id, source_rank)
            tokens = kernels.Tokens(ids, rows, homes)
            kernels.replay_dispatch(
                tokens, replicas, DEDUPS[self.objective.dedup], self.topology.entry_gpu, sums, cells
            )
        self.tokens += len(ids)
        self.load += cells.load.sum(axis=0, dtype=np.int64)
        return cells.load
