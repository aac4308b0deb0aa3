"""MoETuner, arXiv 2502.06643: its two programmes against contiguous placement, Mixtral-8x7B on four GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import placement
import solvers
from benchmarks.reproduce._rows import Row, bisected, gain
from benchmarks.reproduce.exflow import mixtral_affinity
from placement.time import TimeModel, step_time
from traces import Profile, Trace
from traces.synthetic import Synthetic, generate

__all__ = ["rows"]

LAYERS, GPUS = 32, 4
TAIL = {"one node": 36.3, "two nodes": 30.5}  # all-to-all
TOKENS = {"one node": 36.0, "two nodes": 27.0}
FASTER = {"one node": 9.3, "two nodes": 17.5}
MACHINES = {"one node": "h100", "two nodes": "h200"}
TOPOLOGIES = {"one node": "1x4", "two nodes": "2x2"}
SKEWS = (0.0, 2.0)


def busiest_links(plan: placement.Plan, profile: Profile, topology: placement.Topology) -> npt.NDArray[np.float64]:
    """Return the pairs on the slowest link from GPU to GPU times its cost, per boundary of layers, (L-1,)."""
    gpu = np.empty((profile.num_layers, profile.num_experts), np.int64)
    slots = plan.physical_to_logical_map
    layer, slot = np.nonzero(slots >= 0)
    gpu[layer, slots[layer, slot]] = slot // plan.slots_per_gpu
    most = []
    for boundary, pairs in enumerate(profile.affinity):
        moved = np.zeros((plan.num_gpus, plan.num_gpus))
        np.add.at(moved, (gpu[boundary][:, None], gpu[boundary + 1][None, :]), pairs)
        most.append((moved * topology.hop_cost).max())
    return np.array(most)


def any_size(fit: npt.NDArray[np.int64], held_out: npt.NDArray[np.int64]) -> list[float]:
    """Return the busiest cluster over the mean, per layer, of clusters of any size: heaviest expert first.

    Parameters
    ----------
    fit, held_out : (L, E) int64
        Loads that clusters are made by, and are judged by.
    """
    found = []
    for known, load in zip(fit, held_out, strict=True):
        weight, real = np.zeros(GPUS), np.zeros(GPUS)
        for expert in np.argsort(-known, kind="stable"):
            cluster = int(weight.argmin())
            weight[cluster] += known[expert]
            real[cluster] += load[expert]
        found.append(float(real.max() / real.mean()))
    return found


def both_tails(before: list[float], after: list[float]) -> tuple[float, float]:
    """Return how much less the busiest GPU gets, mean over layers and in the worst layer, from least to most."""
    mean, worst = gain(float(np.mean(before)), float(np.mean(after))), gain(max(before), max(after))
    return min(mean, worst), max(mean, worst)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What MoETuner's plan has less than the contiguous one on tokens held out, percent.

    Attributes
    ----------
    tail : float
        Of the slowest links.
    tokens, tokens_equal : pair of float
        Of the busiest GPU's tokens, see `both_tails`: clusters of any size, and of equal sizes.
    faster : dict of str to float
        Of a step, by phase.
    """

    tail: float
    tokens: tuple[float, float]
    tokens_equal: tuple[float, float]
    faster: dict[str, float]


def figures(affinity: float, skew: float, tokens: int, work: int, where: str, *, timed: bool) -> Figures:
    """Return the figures of one skew of popularity."""
    sizes = Synthetic(num_layers=LAYERS, num_experts=8, top_k=2, num_tokens=tokens, affinity=affinity, skew=skew)
    fit, held_out = generate(sizes).split(0.5)
    topology = placement.Topology.parse(TOPOLOGIES[where])
    problem = placement.Problem(profile=Profile.of(fit), topology=topology)
    plans = [
        solvers.solve(problem, "contiguous").plan,
        solvers.solve(problem, "moetuner", limits=solvers.Limits(work=work)).plan,
    ]
    known = Profile.of(held_out)
    tail = [float(busiest_links(plan, known, topology).sum()) for plan in plans]
    before, equal = (placement.evaluate(plan, held_out).per_layer["imbalance_max_over_mean"] for plan in plans)
    uneven = any_size(problem.profile.load, known.load)
    phases = ("prefill", "decode") if timed else ()
    steps = {phase: [step_ms(plan, held_out, where, phase) for plan in plans] for phase in phases}
    return Figures(
        tail=gain(*tail),
        tokens=both_tails(before, uneven),
        tokens_equal=both_tails(before, equal),
        faster={phase: gain(*both) for phase, both in steps.items()},
    )


def step_ms(plan: placement.Plan, trace: Trace, where: str, phase: Any) -> float:
    """Return the milliseconds of a forward pass: 4,096 tokens per GPU in prefill, 128 in decode."""
    return step_time(
        plan, trace, TimeModel.of(f"{MACHINES[where]}:{TOPOLOGIES[where]}", "mixtral-8x7b", phase=phase)
    ).step_ms


def rows(tokens: int = 20_000, work: int = 1_000_000) -> list[Row]:
    """Return the figures.

    Parameters
    ----------
    tokens : int
        Of the trace; half are fitted, half judge.
    work : int
        Of each search.
    """
    affinity = mixtral_affinity(tokens // 2)

    def tail(skew: float) -> float:
        return figures(affinity, skew, tokens, work, "one node", timed=False).tail

    skew = bisected(tail, TAIL["one node"], *SKEWS)
    found = {where: figures(affinity, skew, tokens, work, where, timed=True) for where in TOPOLOGIES}
    made = [Row(what="skew of the generator", printed=None, here=skew, fitted=True)]
    for where, item in found.items():
        what, fitted = f"{where}: tail of all-to-all, less, %", where == "one node"
        made.append(Row(what=what, printed=TAIL[where], here=item.tail, form="{:.1f}", fitted=fitted))
    for where, item in found.items():
        what = f"{where}: tail of token processing, less, %"
        made.append(Row(what=what, printed=TOKENS[where], here=item.tokens, form="{:.1f}"))
    equal = found["one node"].tokens_equal
    made.append(Row(what="the same, clusters of equal size, %", printed=None, here=equal, form="{:.1f}"))
    for where, item in found.items():
        what, both = f"{where}: end to end, less time, %", (item.faster["decode"], item.faster["prefill"])
        made.append(Row(what=what, printed=FASTER[where], here=both, form="{:.1f}"))
    return made
