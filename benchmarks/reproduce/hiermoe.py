"""HierMoE, arXiv 2508.09591: copies of tokens merged level by level, and experts swapped, on four nodes of eight A6000.

Exchanges are timed by the paper's own performance models with the constants that it prints; routing is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import placement
import solvers
from benchmarks.reproduce._rows import Row
from traces import Profile, Trace
from traces.synthetic import Synthetic, generate

__all__ = ["rows"]

LAYERS, CAP = 4, 1.1
TOKENS = 1024  # of each GPU: a micro batch of one sequence (section V-A)
BYTES = 2 * 2048  # of a token: Qwen3-30B-A3B, 16 bits
GROUPS = (4, 8, 16, 32)  # nodes, sockets, pairs of GPUs, GPUs (figure 1, section III)
# Figure 9: t = alpha + beta n, milliseconds and bytes; of a whole exchange, then between and within groups of a level.
WHOLE = (0.722, 5.70e-7)
BETWEEN = ((0.497, 5.29e-7), (0.301, 1.17e-7), (0.149, 2.06e-8))
WITHIN = ((0.571, 1.27e-7), (0.114, 2.63e-8), (0.204, 1.64e-8))
# Table IV, 32 GPUs: (K, E), then HD2-MoE, HD-MoE and HierMoE over Megatron-LM.
PRINTED = {
    (6, 128): (0.95, 1.37, 1.56),
    (8, 128): (1.26, 1.72, 1.99),
    (10, 128): (1.30, 1.82, 2.10),
    (8, 64): (1.12, 1.57, 1.83),
    (8, 256): (1.18, 1.61, 1.84),
}
NAMES = ("two levels", "best levels", "swapped too")
END_TO_END, SHARES = (1.18, 1.27), (0.3, 0.6)
Counts = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Routed:
    """What the tokens of a rank send in a layer, mean over ranks, the group that gets most counting.

    Attributes
    ----------
    copies : (L,) float64
        A copy per expert, to the GPU that gets most.
    merged : (levels, L) float64
        A copy per group, to the group that gets most, for the groups of each level.
    nodes : float
        Nodes of a token.
    """

    copies: Counts
    merged: Counts
    nodes: float

    @classmethod
    def of(cls, plan: placement.Plan, trace: Trace) -> Routed:
        """Count the tokens of a trace under a plan without replicas; each sequence is the micro batch of a rank."""
        slot_of = np.argsort(plan.physical_to_logical_map, axis=1)
        ids = np.concatenate([batch.topk_ids for batch in trace.batches()]).astype(np.int64)
        gpu = np.stack([slot_of[layer][ids[:, layer]] for layer in range(LAYERS)], axis=1) // plan.slots_per_gpu
        ranks = gpu[: len(gpu) // TOKENS * TOKENS].reshape(-1, TOKENS, LAYERS, ids.shape[2])
        every = np.stack([(ranks == group).sum(axis=(1, 3)) for group in range(32)])
        merged, nodes = [], 0.0
        for groups in GROUPS:
            where = ranks // (32 // groups)
            counts = np.stack([(where == group).any(axis=3).sum(axis=1) for group in range(groups)])
            merged.append(counts.mean(axis=1).max(axis=0))
            nodes = nodes or float(counts.sum(axis=0).mean()) / TOKENS
        return cls(copies=every.mean(axis=1).max(axis=0), merged=np.array(merged), nodes=nodes)

    def whole_ms(self) -> float:
        """Return the time of Megatron's exchange: a copy per expert, straight to its GPU (equation 1)."""
        alpha, beta = WHOLE
        return alpha + beta * 32 * float(self.copies.mean()) * BYTES

    def levels_ms(self, levels: int) -> float:
        """Return the time of a hierarchical exchange with so many levels, merged at each (equation 3)."""
        time, sources, merged = 0.0, 1, self.merged.mean(axis=1) * BYTES
        for level in range(levels - 1):
            fan = GROUPS[level] // (GROUPS[level - 1] if level else 1)
            alpha, beta = BETWEEN[level]
            time += alpha + beta * fan * sources * float(merged[level])
            sources *= fan  # a GPU now holds what as many others sent
        alpha, beta = WITHIN[levels - 2]
        return time + alpha + beta * (32 // GROUPS[levels - 2]) * sources * float(merged[-1])

    def best_ms(self) -> float:
        """Return the time with the best number of levels."""
        return min(self.levels_ms(levels) for levels in (2, 3, 4))


def end_to_end(faster: float, share: float) -> float:
    """Return how much faster an iteration is whose exchanges, so large a share of it, are (Amdahl)."""
    return 1 / (1 - share * (1 - 1 / faster))


def rows(tokens: int = 65_536, work: int = 500_000) -> list[Row]:
    """Return the figures.

    Parameters
    ----------
    tokens : int
        Of each trace; half are fitted.
    work : int
        Of each search.
    """
    made: list[Row] = []
    faster: list[float] = []
    for (top_k, experts), printed in PRINTED.items():
        sizes = Synthetic(
            num_layers=LAYERS,
            num_experts=experts,
            top_k=top_k,
            num_tokens=tokens,
            tokens_per_sequence=TOKENS,
            skew=0,
            balance=1,
        )
        fit, held_out = generate(sizes).split(0.5)
        problem = placement.Problem(
            profile=Profile.of(fit),
            topology=placement.Topology.parse("4x8"),
            objective=placement.Objective(execution="dispatch", dedup="node"),
            constraints=placement.Constraints(load_cap=CAP),
        )
        before = Routed.of(solvers.solve(problem, "contiguous").plan, held_out)
        plan = solvers.solve(problem, "annealing", limits=solvers.Limits(work=work)).plan
        after = Routed.of(plan, held_out)
        whole = before.whole_ms()
        here = (whole / before.levels_ms(2), whole / before.best_ms(), whole / after.best_ms())
        faster.append(here[2])
        for name, figure, value in zip(NAMES, printed, here, strict=True):
            made.append(Row(what=f"top {top_k} of {experts}, {name}: times faster", printed=figure, here=value))
        if (top_k, experts) == (8, 128):
            made.append(Row(what="top 8 of 128: nodes of a token", printed=None, here=before.nodes))
            made.append(Row(what="top 8 of 128, swapped: nodes of a token", printed=None, here=after.nodes))
    whole_step = (end_to_end(min(faster), SHARES[0]), end_to_end(max(faster), SHARES[1]))
    return [*made, Row(what="an iteration, times faster", printed=END_TO_END, here=whole_step)]
