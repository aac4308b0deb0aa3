"""Activated experts: whose weights a GPU has to read for a batch, which is what decoding waits for.

References
----------
METRO (see ``docs/problem.md``, "Activated experts"): memory-bound decoding takes time per expert with tokens, not per
token.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement.loads.policies import POLICIES
from placement.problem.objective import SettledObjective
from placement.replay.kernels.activation import sum_most_active
from placement.replay.kernels.replay import Replicas, Tokens
from placement.replay.replay import homes_of, replica_table
from placement.topology.topology import Topology
from traces import TokenSample

__all__ = ["activated_experts"]


def activated_experts(
    table: npt.NDArray[np.integer],
    num_experts: int,
    slots_per_gpu: int,
    sample: TokenSample,
    topology: Topology,
    objective: SettledObjective,
    batch: int,
) -> npt.NDArray[np.float64]:
    """Return the most experts with tokens on a GPU, mean over batches, for each layer, (L,).

    Parameters
    ----------
    table : (L, S) integers
    sample : TokenSample
        In random order, so that consecutive tokens are those of different sequences, as they are in a decoding engine.
    objective : SettledObjective
        Dispatch; its ownership and replica policy decide which replicas are used.
    batch : int
        Tokens per batch, over all ranks together.
    """
    gpus, counts = replica_table(table, num_experts, slots_per_gpu)
    homes = homes_of(objective, topology.num_gpus, sample.rows, sample.seq_id, sample.source_rank)
    most = np.zeros(len(table))
    policy = POLICIES[objective.replica_policy]
    sum_most_active(
        Tokens(sample.topk_ids, sample.rows, homes), Replicas(gpus, counts, policy, topology.node_of_gpu), batch, most
    )
    mean: npt.NDArray[np.float64] = most / max(1, -(-len(sample) // batch))
    return mean
