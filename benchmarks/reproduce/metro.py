"""METRO, arXiv 2512.09277: decode that waits for activated experts, not tokens; its routing against EPLB's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

import placement
from benchmarks.reproduce._rows import Row, gain
from placement.time import PassReplay, TimeModel
from placement.time.step import travel_in_steps
from solvers.methods.eplb.solver import rebalance
from traces import Profile, Trace
from traces.synthetic import Synthetic, generate

__all__ = ["fewest_activated", "rows"]

LAYERS, PASSES = 4, 4
REDUNDANCY = (1.125, 1.25, 1.5)  # slots per expert
PRINTED = (11.0, 22.0)  # over all models and machines
DECODE = (16, 64)  # tokens per GPU
CASES = {
    "Qwen3-30B-A3B, 8 A100": ("a100:1x8", "qwen3-30b-a3b", 128),
    "DeepSeek-V3, 8 B200": ("b200:1x8", "deepseek-v3", 256),
    "DeepSeek-V3, 16 B200": ("b200:1x16", "deepseek-v3", 256),
}
Counts = npt.NDArray[np.int64]


def fewest_activated(table: Counts, ids: Counts, gpus: int) -> tuple[Counts, Counts]:
    """Send every expert's tokens of a pass to one replica, so that the GPU with the most activated experts has few.

    Experts with the fewest replicas choose first, those with more tokens before others; each takes the replica on the
    GPU with the fewest activated experts so far, then with the fewest tokens. It stands for METRO's routing, from the
    abstract's description: balance of activated experts, near-optimal.

    Parameters
    ----------
    table : (L, S) int64
        Expert of each slot.
    ids : (T, L, K) int64
        Tokens of the pass.
    gpus : int

    Returns
    -------
    counts : (L, G, C) int64
        Tokens of each slot.
    rows : (L, G) int64
        Distinct tokens that each GPU receives.
    """
    layers, slots = table.shape
    size, experts = slots // gpus, int(table.max()) + 1
    counts, rows = np.zeros((layers, slots), np.int64), np.zeros((layers, gpus), np.int64)
    for layer in range(layers):
        load = np.bincount(ids[:, layer].ravel(), minlength=experts)
        replicas = [np.flatnonzero(table[layer] == expert) for expert in range(experts)]
        used, tokens, home = np.zeros(gpus, np.int64), np.zeros(gpus, np.int64), np.full(experts, -1)
        for expert in sorted(np.flatnonzero(load), key=lambda expert: (len(replicas[expert]), -load[expert])):
            where = replicas[expert] // size
            slot = replicas[expert][np.lexsort((tokens[where], used[where]))[0]]
            home[expert] = slot // size
            counts[layer, slot] = load[expert]
            used[home[expert]] += 1
            tokens[home[expert]] += load[expert]
        chosen = home[ids[:, layer]]
        rows[layer] = [(chosen == gpu).any(axis=1).sum() for gpu in range(gpus)]
    return counts.reshape(layers, gpus, size), rows


@dataclass(frozen=True, kw_only=True)
class Decode:
    """A decode step of some size on EPLB's placement, means over passes.

    Attributes
    ----------
    activated : pair of float
        On the GPU with most, mean over layers: tokens split evenly over replicas, and METRO's routing.
    step_ms : pair of float
        Of a layer, attention included.
    """

    activated: tuple[float, float]
    step_ms: tuple[float, float]


def decode(held_out: Trace, load: Counts, where: str, tokens_per_gpu: int, redundancy: float) -> Decode:
    """Return the step under both routings of the same placement."""
    machine, model, experts = CASES[where]
    time = replace(TimeModel.of(machine, model, phase="decode", tokens_per_gpu=tokens_per_gpu), dense_layers=0)
    gpus = time.machine.num_gpus
    slots = round(experts * redundancy / gpus) * gpus
    table = np.asarray(rebalance(load, num_slots=slots, num_groups=1, num_nodes=1, num_gpus=gpus), np.int64)
    plan = placement.Plan.of(table, layer_ids=range(LAYERS), num_experts=experts, gpus_per_node=(gpus,))
    replay = PassReplay(plan, time.machine.topology(), travel_in_steps(held_out, time, None, None, None, "fair"))
    passes = held_out.batches(time.pass_tokens)
    activated, steps = [], []
    for (even, _), batch in zip(replay.loads(held_out, time.pass_tokens, PASSES), passes, strict=False):
        counts, rows = fewest_activated(table, batch.topk_ids.astype(np.int64), gpus)
        few = replace(even, counts=counts, rows=rows)
        times = time.layer_times(even)  # exchanges are taken alike, which is METRO's claim for its all-gather
        both = (times, replace(times, experts=time.rank_ms(few).max(axis=1)))
        steps.append([time.step_ms(item) / LAYERS for item in both])
        activated.append([float((item.counts > 0).sum(axis=2).max(axis=1).mean()) for item in (even, few)])
    first, second = np.mean(activated, axis=0), np.mean(steps, axis=0)
    return Decode(activated=(float(first[0]), float(first[1])), step_ms=(float(second[0]), float(second[1])))


def rows(tokens: int = 24_576) -> list[Row]:
    """Return the figures.

    Parameters
    ----------
    tokens : int
        Of each trace; half are fitted.
    """
    found: dict[tuple[str, float], list[Decode]] = {}
    for where, (_, _, experts) in CASES.items():
        # every token of a sequence of its own, as in a decoding batch
        sizes = Synthetic(num_layers=LAYERS, num_experts=experts, top_k=8, num_tokens=tokens, tokens_per_sequence=1)
        fit, held_out = generate(sizes).split(0.5)
        load = Profile.of(fit).load
        for redundancy in (1.0, *REDUNDANCY):
            found[where, redundancy] = [decode(held_out, load, where, size, redundancy) for size in DECODE]
    made = []
    for redundancy in REDUNDANCY:
        gains = [gain(*item.step_ms) for where in CASES for item in found[where, redundancy]]
        what = f"{redundancy:g} slots per expert: decode latency, less, %"
        made.append(Row(what=what, printed=PRINTED, here=(min(gains), max(gains)), form="{:.1f}"))
    for where in CASES:
        plain, spread = found[where, 1.0][0], found[where, REDUNDANCY[-1]][0]
        few, many = (value / plain.activated[0] for value in reversed(spread.activated))
        what = f"{where}: activated experts, times those without replicas"
        made.append(Row(what=what, printed=None, here=(few, many)))
    return made
