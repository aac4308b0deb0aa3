"""METRO, arXiv 2512.09277: decode that waits for activated experts, not tokens; its routing against EPLB's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

import placement
from benchmarks.reproduce._rows import Row, gain
from placement.time import Machine, PassReplay, TimeModel
from placement.time.step import travel_in_steps
from solvers.methods.eplb.solver import rebalance
from traces import Profile, Trace
from traces.synthetic import Synthetic, generate

__all__ = ["fewest_activated", "rows"]

LAYERS, PASSES = 4, 4
REDUNDANCY = (1.125, 1.25, 1.5)  # slots per expert: the paper's replication ratios
BATCH = 32  # tokens of all GPUs in figure 8
CASES = {  # machine, model, experts, and tokens per GPU: 32, or 1,024 in all (section VI-A)
    "Qwen3-30B-A3B, 8 A100": ("a100:1x8", "qwen3-30b-a3b", 128, 32),
    "Qwen3-235B-A22B, 8 B200": ("b200:1x8", "qwen3-235b-a22b", 128, 128),
    "DeepSeek-V3, 16 B200": ("b200:1x16", "deepseek-v3", 256, 64),
}
# Figures 9 and 10, and their text: at 1.5 slots per expert, over all ratios, and EPLB against no replication.
LESS = {"Qwen3-30B-A3B, 8 A100": 12.9, "Qwen3-235B-A22B, 8 B200": 21.8, "DeepSeek-V3, 16 B200": 21.8}
ALL, EPLB_MORE, FEWER, ABOVE_LEAST = (1.9, 21.8), 20.0, 42.3, 10.9
Counts = npt.NDArray[np.int64]


def fewest_activated(table: Counts, ids: Counts, gpus: int) -> tuple[Counts, Counts]:
    """Send every expert's tokens of a pass to one replica, so that the GPU with the most activated experts has few.

    Experts with the fewest replicas choose first, those with more tokens before others; each takes the replica on the
    GPU with the fewest activated experts so far, then with the fewest tokens. Algorithm 1 of the paper
    takes experts as its threads come, with the same choice of the GPU.

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


def least_activated(table: Counts, ids: Counts, gpus: int) -> float:
    """Return the fewest activated experts that the busiest GPU can have, mean over layers: a flow for each number."""
    least = []
    for layer, slots in enumerate(table):
        active = np.unique(ids[:, layer])
        where = np.arange(len(slots)) // (len(slots) // gpus)
        index = {int(expert): number for number, expert in enumerate(active)}
        edges = {(index[int(e)], int(g)) for e, g in zip(slots, where, strict=True) if int(e) in index}
        source, sink = len(active) + gpus, len(active) + gpus + 1
        ends = [*((e, len(active) + g) for e, g in edges), *((source, e) for e in range(len(active)))]
        ends += [(len(active) + g, sink) for g in range(gpus)]
        for most in range(-(-len(active) // gpus), len(active) + 1):
            room = [1] * (len(ends) - gpus) + [most] * gpus
            graph = csr_array((np.array(room, np.int32), np.array(ends).T), shape=(sink + 1, sink + 1))
            if maximum_flow(graph, source, sink).flow_value == len(active):
                break
        least.append(most)
    return float(np.mean(least))


@dataclass(frozen=True, kw_only=True)
class Decode:
    """Milliseconds of a layer of a decode step, mean over passes: tokens spread evenly, and METRO's routing."""

    even_ms: float
    few_ms: float


def placed(load: Counts, experts: int, gpus: int, redundancy: float) -> Counts:
    """Return EPLB's placement, global policy."""
    slots = round(experts * redundancy / gpus) * gpus
    return np.asarray(rebalance(load, num_slots=slots, num_groups=1, num_nodes=1, num_gpus=gpus), np.int64)


def decode(held_out: Trace, load: Counts, where: str, redundancy: float) -> Decode:
    """Return the step under both routings of the same placement."""
    machine, model, experts, tokens_per_gpu = CASES[where]
    time = replace(TimeModel.of(machine, model, phase="decode", tokens_per_gpu=tokens_per_gpu), dense_layers=0)
    gpus = time.machine.num_gpus
    table = placed(load, experts, gpus, redundancy)
    plan = placement.Plan.of(table, layer_ids=range(LAYERS), num_experts=experts, gpus_per_node=(gpus,))
    replay = PassReplay(plan, time.machine.topology(), travel_in_steps(held_out, time, None, None, None, "fair"))
    passes = held_out.batches(time.pass_tokens)
    steps = []
    for (even, _), batch in zip(replay.loads(held_out, time.pass_tokens, PASSES), passes, strict=False):
        counts, rows = fewest_activated(table, batch.topk_ids.astype(np.int64), gpus)
        few = replace(even, counts=counts, rows=rows)
        times = time.layer_times(even)  # exchanges are taken alike: the paper sees no difference (figure 11)
        both = (times, replace(times, experts=time.rank_ms(few).max(axis=1)))
        steps.append([time.step_ms(item) / LAYERS for item in both])
    first, second = np.mean(steps, axis=0)
    return Decode(even_ms=float(first), few_ms=float(second))


def activated(held_out: Trace, load: Counts, where: str, redundancy: float) -> tuple[float, float, float]:
    """Return the activated experts of the busiest GPU, batches of 32: spread evenly, METRO's, and the fewest."""
    machine, _, experts, _ = CASES[where]
    gpus = Machine.parse(machine).num_gpus
    table = placed(load, experts, gpus, redundancy)
    plan = placement.Plan.of(table, layer_ids=range(LAYERS), num_experts=experts, gpus_per_node=(gpus,))
    travel = placement.Objective(execution="dispatch", dedup="none", ownership="token", replica_policy="fair")
    replay = PassReplay(plan, Machine.parse(machine).topology(), travel.settled(capped=False))
    found = []
    for (even, _), batch in zip(replay.loads(held_out, BATCH, PASSES), held_out.batches(BATCH), strict=False):
        ids = batch.topk_ids.astype(np.int64)
        counts, _ = fewest_activated(table, ids, gpus)
        both = [float((item > 0).sum(axis=2).max(axis=1).mean()) for item in (even.counts, counts)]
        found.append([*both, least_activated(table, ids, gpus)])
    spread, few, least = np.mean(found, axis=0)
    return float(spread), float(few), float(least)


def rows(tokens: int = 24_576) -> list[Row]:
    """Return the figures.

    Parameters
    ----------
    tokens : int
        Of each trace; half are fitted.
    """
    found: dict[tuple[str, float], Decode] = {}
    busiest: dict[tuple[str, float], tuple[float, float, float]] = {}
    for where, (_, _, experts, _) in CASES.items():
        # every token of a sequence of its own, as in a decoding batch
        sizes = Synthetic(num_layers=LAYERS, num_experts=experts, top_k=8, num_tokens=tokens, tokens_per_sequence=1)
        fit, held_out = generate(sizes).split(0.5)
        load = Profile.of(fit).load
        for redundancy in (1.0, *REDUNDANCY):
            found[where, redundancy] = decode(held_out, load, where, redundancy)
            if redundancy > 1:
                busiest[where, redundancy] = activated(held_out, load, where, redundancy)
    gains = {key: gain(item.even_ms, item.few_ms) for key, item in found.items() if key[1] > 1}
    largest = REDUNDANCY[-1]
    more = [100 * (found[where, largest].even_ms / found[where, 1.0].even_ms - 1) for where in CASES]
    fewer = [gain(spread, few) for spread, few, _ in busiest.values()]
    above = [100 * (few / least - 1) for _, few, least in busiest.values()]
    form = "{:.1f}"
    made = [
        Row(
            what=f"{where}: decode latency, less, %",
            printed=LESS[where],
            here=gains[where, largest],
            form=form,
            most=True,
        )
        for where in CASES
    ]
    ends = (min(gains.values()), max(gains.values()))
    return [
        *made,
        Row(what="1.125 to 1.5 slots per expert: decode latency, less, %", printed=ALL, here=ends, form=form),
        Row(
            what="EPLB at 1.5, above no replicas: decode latency, %",
            printed=EPLB_MORE,
            here=max(more),
            form=form,
            most=True,
        ),
        Row(what="activated experts below EPLB's, %", printed=FEWER, here=max(fewer), form=form, most=True),
        Row(what="activated experts above the fewest, %", printed=ABOVE_LEAST, here=max(above), form=form, most=True),
    ]
