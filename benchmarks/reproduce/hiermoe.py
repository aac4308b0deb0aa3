"""HierMoE, arXiv 2508.09591: copies of tokens merged per node, and experts swapped, on four nodes of eight GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import placement
import solvers
from benchmarks.reproduce._rows import Row
from placement.time import GPUS, PassReplay
from traces import Profile, Trace
from traces.synthetic import Synthetic, generate

__all__ = ["rows"]

LAYERS, CAP = 4, 1.1
GPU = "a100"  # for the ratio of its links: 300 and 25 GB/s
SHARES = (0.3, 0.6)  # of an iteration, in exchanges
MODELS: dict[str, dict[str, Any]] = {
    "Qwen3-30B-A3B": {"num_experts": 128},
    "DeepSeek-V3": {"num_experts": 256, "groups": 8, "group_limit": 4},
}


@dataclass(frozen=True, kw_only=True)
class Exchanged:
    """Copies of a token that go to other nodes, per layer, and the time of an exchange in copies over GB/s."""

    remote: float
    time: float


def exchanged(plan: placement.Plan, held_out: Trace, tokens: int, dedup: Any) -> Exchanged:
    """Return what a pass exchanges: between nodes, then within, each as long as its busiest rank."""
    travel = placement.Objective(execution="dispatch", dedup=dedup, ownership="token").settled(capped=False)
    load, _ = next(PassReplay(plan, placement.Topology.parse("4x8"), travel).loads(held_out, tokens, 1))
    across, inside = (part.max(axis=(1, 2)).sum() for part in (load.across, load.inside))
    gpu = GPUS[GPU]
    return Exchanged(
        remote=float(load.across[:, :, 0].sum()) / LAYERS / tokens,
        time=float(across / gpu.network_gb_s + inside / gpu.nvlink_gb_s),
    )


def end_to_end(faster: float, share: float) -> float:
    """Return how much faster an iteration is whose exchanges, so large a share of it, are (Amdahl)."""
    return 1 / (1 - share * (1 - 1 / faster))


def rows(tokens: int = 16_384, work: int = 1_000_000) -> list[Row]:
    """Return the figures.

    Parameters
    ----------
    tokens : int
        Of each trace; half are fitted.
    work : int
        Of each search.
    """
    copies: list[Row] = []
    faster: dict[str, tuple[float, float]] = {}
    for name, sizes in MODELS.items():
        fit, held_out = generate(Synthetic(num_layers=LAYERS, top_k=8, num_tokens=tokens, **sizes)).split(0.5)
        problem = placement.Problem(
            profile=Profile.of(fit),
            topology=placement.Topology.parse("4x8"),
            objective=placement.Objective(execution="dispatch", dedup="node"),
            constraints=placement.Constraints(load_cap=CAP),
        )
        before = solvers.solve(problem, "contiguous").plan
        balanced = solvers.solve(problem, "load_balance").plan
        swapped = solvers.solve(problem, "annealing", limits=solvers.Limits(work=work)).plan
        cases = {"one per expert": (before, "none"), "one per node": (before, "node"), "and swapped": (swapped, "node")}
        found = {how: exchanged(plan, held_out, tokens // 2, dedup) for how, (plan, dedup) in cases.items()}
        even = exchanged(balanced, held_out, tokens // 2, "none")
        for how, item in found.items():
            copies.append(Row(what=f"{name}: copies between nodes per token, {how}", printed=None, here=item.remote))
        least = found["and swapped"].time
        faster[name] = (even.time / least, found["one per expert"].time / least)
    low, high = min(low for low, _ in faster.values()), max(high for _, high in faster.values())
    whole = (end_to_end(low, SHARES[0]), end_to_end(high, SHARES[1]))
    return [
        *copies,
        *(
            Row(what=f"{name}: exchanges, times faster", printed=(1.55, 3.32), here=here)
            for name, here in faster.items()
        ),
        Row(what="an iteration, times faster", printed=(1.18, 1.27), here=whole),
    ]
